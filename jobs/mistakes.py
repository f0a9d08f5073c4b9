"""What is wrong with a recipe, a line a key, out of what pydantic finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


def problems_of(error: ValidationError, model: type[BaseModel], config: str) -> list[str]:
    """One line for each key: what is wrong, where, and what would be right.

    Args:
        error: What was found.
        model: The recipe's, for the keys it knows.
        config: Where the recipe is from.
    """
    places: dict[str, list[dict[str, Any]]] = {}
    for detail in error.errors():
        places.setdefault(_place(detail), []).append(dict(detail))
    return [_explain(model, config, place, details) for place, details in places.items()]


def _place(error: Mapping[str, Any]) -> str:
    """The key that a pydantic error is about; parts such as "list[constrained-int]" name branches of a union."""
    branches = ("list[", "literal[", "function-", "constrained-")
    return ".".join(part for part in map(str, error["loc"]) if not part.startswith(branches))


def _explain(model: type[BaseModel], config: str, place: str, errors: Sequence[dict[str, Any]]) -> str:
    """One line for the pydantic errors about one key: one, or one of every branch of a union."""
    where = f"{config}: {place}: " if place else f"{config}: "
    kinds = {error["type"] for error in errors}
    if "extra_forbidden" in kinds:
        return where + "unknown key" + _suggest(model, place.split("."))
    if "missing" in kinds:
        return where + "missing: this key is needed."
    if any(not kind.endswith(("_type", "literal_error", "_parsing")) for kind in kinds):  # right type, wrong value
        errors = [error for error in errors if error["type"] != "literal_error"]
    messages = [str(e["msg"]).removeprefix("Value error, ").removeprefix("Input ").strip() for e in errors]
    message = " or ".join([messages[0], *(m.removeprefix("should be ") for m in messages[1:])])
    given = errors[0].get("input")
    shown = f", not {given!r}" if place and not isinstance(given, dict | BaseModel) else ""
    return f"{where}{message}{shown}."


def _suggest(kind: type[BaseModel], location: list[str]) -> str:
    model: Any = kind
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = next((a for a in getattr(annotation, "__args__", (annotation,)) if _is_section(a)), None)
        if model is None:
            return "."
    known = list(model.model_fields)
    close = get_close_matches(location[-1], known, n=1)
    return f": did you mean {close[0]}?" if close else f" (known: {', '.join(known)})."


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)

"""The recipe: what a user writes, checked in full before any work."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..schemas.errors import ConfigurationError
from .mistakes import problems_of

ALGORITHM_VERSION = 7  # grows when the same recipe gives other results

# How a run is carried out, not what it gives: such keys are left out of the config hash.
_OPERATIONAL = {"operational": True}


class _Section(BaseModel):
    # Strict types: `size: "10"` or `seed: 1.5` is a mistake, not a number to convert.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _one_or_list(value: Any) -> Any:
    return [value] if isinstance(value, int | str) and value != "auto" else value


Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# `[4, 2]`, or `4` for a tree of one level
PerLevel = Annotated[list[Positive], BeforeValidator(_one_or_list), Field(min_length=1)]
# `100000` for the bottom level, or `[100000, null]`
Split = Annotated[list[Positive | None], BeforeValidator(_one_or_list), Field(min_length=1)]


class Source(_Section):
    """The user's table of items."""

    table: str
    id: str = "id"
    content: str
    kind: Literal["image", "text"]
    where: str | None = None
    keep: list[str] = []


class Embeddings(_Section):
    """Embeddings that the user brings, in place of `source` and `embed`."""

    table: str
    id: str = "id"
    column: str = "embedding"
    where: str | None = None
    keep: list[str] = []


class Embed(_Section):
    """How items become vectors."""

    encoder: str = "convolution"
    params: dict[str, Any] = {}
    normalize: Literal["l2", "none"] = "l2"
    seed: Seed = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(json_schema_extra=_OPERATIONAL)] = "auto"
    batch_size: Annotated[Positive, Field(json_schema_extra=_OPERATIONAL)] = 128
    rows_per_commit: Annotated[Positive, Field(json_schema_extra=_OPERATIONAL)] = 1_000_000


class Resampling(_Section):
    """Rounds of clustering afresh on some members of every cluster; sizes: `auto` is half the mean cluster size."""

    rounds: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    closest: Literal["auto"] | PerLevel | None = None
    random: Literal["auto"] | PerLevel | None = None

    @model_validator(mode="after")
    def _one_strategy(self) -> Resampling:
        if self.closest is not None and self.random is not None:
            raise ValueError("give closest or random, not both")
        return self

    @property
    def strategy(self) -> Literal["closest", "random"]:
        """Which members a round keeps."""
        return "random" if self.random is not None else "closest"

    @property
    def sizes(self) -> Literal["auto"] | list[int]:
        """Members of each cluster that a round keeps, a number a level."""
        return self.random or self.closest or "auto"


class Cluster(_Section):
    """How vectors become a tree."""

    levels: Literal["auto"] | PerLevel = "auto"
    metric: Literal["auto", "l2", "cosine"] = "auto"
    algorithm: Literal["minibatch", "lloyd"] = "minibatch"
    resampling: Resampling | None = Resampling()
    init: Literal["auto", "k-means++", "random"] = "auto"
    split: Split | None = None
    probe: Positive | Literal["all"] = 8
    max_iter: Positive = 50
    tol: Annotated[float, Field(ge=0)] = 1e-4
    seed: Seed = 0
    scratch: Annotated[Literal["auto", "cache", "files", "table"], Field(json_schema_extra=_OPERATIONAL)] = "auto"
    scratch_path: Annotated[str | None, Field(json_schema_extra=_OPERATIONAL)] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(json_schema_extra=_OPERATIONAL)] = "auto"
    driver_bytes: Annotated[Positive, Field(json_schema_extra=_OPERATIONAL)] = 1 << 30
    checkpoint_seconds: Annotated[float, Field(ge=0, json_schema_extra=_OPERATIONAL)] = 30.0

    @model_validator(mode="after")
    def _levels_fit(self) -> Cluster:
        if self.levels == "auto":
            return self
        if any(above >= below for below, above in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError(f"levels={self.levels} should fall from the bottom to the top")
        sizes = self.resampling.sizes if self.resampling else "auto"
        if sizes != "auto" and len(sizes) != len(self.levels):
            raise ValueError(f"resampling names {len(sizes)} sizes for {len(self.levels)} levels")
        for level, (k, groups) in enumerate(zip(self.levels, self.splits(len(self.levels)), strict=True), start=1):
            if groups is not None and groups > k:
                raise ValueError(f"split={groups} of level {level} should be at most its {k} clusters")
        return self

    def splits(self, n_levels: int) -> list[int | None]:
        """Pre-clusters of each level; None for one that is clustered in one step."""
        given = self.split or []
        if len(given) > n_levels:
            raise ValueError(f"split names {len(given)} levels, but there are {n_levels}")
        return given + [None] * (n_levels - len(given))


class Sample(_Section):
    """How many items to take from the tree, and how evenly."""

    size: Positive
    strategy: Literal["random", "closest"] = "random"
    multiplier: Positive = 1
    temperature: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = "auto"
    outliers: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Seed = 0


class Labels(_Section):
    """A small table of labelled embeddings, made by the encoder of the recipe's own."""

    table: str
    column: str = "embedding"
    label: str = "label"


class Evaluate(_Section):
    """By what the curated set is judged; without classes by its shape alone."""

    label: str | None = None
    draws: Annotated[int, Field(ge=2)] = 10
    items: Annotated[int, Field(ge=100)] = 50_000
    seed: Seed = 0


class Plan(_Section):
    """What `plan` assumes where it cannot look: the size of a table that is not there, and the machines."""

    rows: Positive | None = None
    dimension: Positive | None = None
    cores: Positive | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None


class Recipe(_Section):
    """Everything a run needs to know."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    source: Source | None = None
    embeddings: Embeddings | None = None
    work: str
    embed: Embed = Embed()
    cluster: Cluster = Cluster()
    sample: Sample | None = None
    labels: Labels | None = None
    evaluate: Evaluate = Evaluate()
    plan: Annotated[Plan, Field(json_schema_extra=_OPERATIONAL)] = Plan()

    @model_validator(mode="after")
    def _one_input(self) -> Recipe:
        if (self.source is None) == (self.embeddings is None):
            raise ValueError("give source (items to embed) or embeddings (your own vectors), one of them")
        if self.embeddings is not None and "embed" in self.model_fields_set:
            raise ValueError("embed does nothing where embeddings are given: leave it out")
        if self.source is not None and (self.embed.encoder == "convolution") != (self.source.kind == "image"):
            raise ValueError(
                f"embed.encoder={self.embed.encoder!r} does not take source.kind={self.source.kind!r}: "
                "convolution is for images; for text name a sentence-transformers model or folder"
            )
        return self


def semantic(section: BaseModel | None) -> Any:
    """The keys of a section that change what comes out, as JSON values."""
    if section is None:
        return None
    values = section.model_dump(mode="json")
    for name, info in type(section).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("operational"):
            del values[name]
    return values


def config_hash(config: Mapping[str, Any]) -> str:
    """A hash of semantic keys and the version of the algorithm, 16 hexadecimal digits."""
    text = json.dumps([ALGORITHM_VERSION, config], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def load_recipe(config: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` settings to it.

    Args:
        config: Path of a YAML file, or the name of a recipe that comes with the package.
        settings: `section.key=value`, the value in YAML.

    Raises:
        ConfigurationError: With one line for each thing that is wrong.
    """
    values = _read_yaml(config)
    problems = [problem for setting in settings if (problem := _apply(values, setting))]
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += problems_of(error, Recipe, config)
    if problems:
        raise ConfigurationError(problems)
    return recipe


def packaged_recipes() -> dict[str, str]:
    """Recipes that come with the package: name -> YAML text."""
    folder = files(__package__.rsplit(".", 1)[0]).joinpath("conf")
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): f.read_text() for f in found}


def _read_yaml(config: str) -> dict[str, Any]:
    path = Path(config)
    packaged = packaged_recipes()
    if path.is_file():
        text = path.read_text()
    elif config in packaged:
        text = packaged[config]
    else:
        raise ConfigurationError(
            [f"{config}: no such file, and no recipe of that name here (there are: {', '.join(packaged)})."]
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError([f"{config}: not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(values, dict):
        raise ConfigurationError([f"{config}: a recipe is a mapping of keys to values, as in conf/demo.yaml."])
    return values


def _apply(values: dict[str, Any], setting: str) -> str | None:
    """Put `a.b=value` into nested mappings; gives what is wrong with it, if anything is."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        return f"--set {setting}: write key=value, as in --set sample.size=1000."
    *sections, last = key.strip().split(".")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"--set {setting}: the value is not YAML; quote it."
    for section in sections:
        inner = values.get(section)
        if inner is None:
            inner = values[section] = {}
        elif not isinstance(inner, dict):
            return f"--set {setting}: {section} has no keys below it."
        values = inner
    values[last] = value
    return None

"""What the tests of the Spark side share: one session, and tables made and read in few lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The session that the jobs make for themselves; started by the first test that asks for it."""
    pytest.importorskip("delta")
    from lakestrata.jobs.session import get_session

    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("spark"))  # the warehouse and other leavings of a JVM fall where it starts
    try:
        session = get_session(small=True)
    finally:
        os.chdir(before)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Any]:
    """Makes recipes for embeddings that the user brings; sections are given as mappings."""
    from lakestrata.jobs.recipe import Recipe

    def make(table: Any, work: Any, **sections: Any) -> Any:
        values = {"name": "test", "embeddings": {"table": str(table), "id": "key"}, "work": str(work)}
        return Recipe.model_validate(values | sections)

    return make

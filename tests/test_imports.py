"""Imports run one way, jobs -> udfs -> kmeans -> schemas, and the lower floors know no engine."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lakestrata

ROOT = Path(lakestrata.__file__).parent
FLOORS = ("jobs", "udfs", "kmeans", "schemas")
SOURCES = sorted(path.relative_to(ROOT) for floor in (*FLOORS, "conf") for path in (ROOT / floor).rglob("*.py"))
ENGINES = {"pyspark", "pyarrow", "delta"}


def tree_of(source):
    return ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8")))


def outside_imports(source):
    """Top names of all absolute imports, those within functions too."""
    for node in tree_of(source):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def own_imports(source):
    """Paths within the package of all relative imports, as tuples of names."""
    for node in tree_of(source):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = source.parent.parts
            assert node.level <= len(base) + 1, f"{source}:{node.lineno} leaves the package"
            folder = base[: len(base) + 1 - node.level]
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((*folder, *module, alias.name) for alias in node.names)


def test_the_sources_are_found():
    assert {source.parts[0] for source in SOURCES} >= set(FLOORS)
    assert len(SOURCES) > 20


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_source_files_import_each_other_relatively(source):
    assert "lakestrata" not in set(outside_imports(source))


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_no_source_imports_tests_or_a_neighbour_as_if_it_stood_alone(source):
    assert not set(outside_imports(source)) & {*FLOORS, "conf", "tests"}


@pytest.mark.parametrize("source", [s for s in SOURCES if s.parts[0] in FLOORS], ids=str)
def test_imports_run_one_way(source):
    allowed = {*FLOORS[FLOORS.index(source.parts[0]) :], "__version__"}
    if source.parts[0] == "jobs":
        allowed.add("conf")
    assert {names[0] for names in own_imports(source)} <= allowed


def free_of_engines(source):
    return source.parts[0] == "kmeans" or source.parts[:2] in {("udfs", "encoders"), ("udfs", "decode.py")}


@pytest.mark.parametrize("source", [s for s in SOURCES if free_of_engines(s)], ids=str)
def test_mathematics_and_encoders_import_no_engine(source):
    assert not set(outside_imports(source)) & ENGINES
    above = {names[:2] for names in own_imports(source) if names[0] == "udfs"}
    assert above <= {("udfs", "encoders"), ("udfs", "decode")}


TORCH_KERNEL = Path("kmeans", "torch_kernel.py")  # imports torch in functions, where it is used


@pytest.mark.parametrize("source", [s for s in SOURCES if s.parts[0] == "kmeans" and s != TORCH_KERNEL], ids=str)
def test_mathematics_imports_no_torch(source):
    assert "torch" not in set(outside_imports(source))


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_to_import_the_mathematics_imports_no_torch_and_no_engine():
    names = [f"lakestrata.kmeans.{s.stem}" for s in SOURCES if s.parent == Path("kmeans") and s.stem != "__init__"]
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "numpy" in ran.stdout.split()
    assert not set(ran.stdout.split()) & {"torch", *ENGINES}

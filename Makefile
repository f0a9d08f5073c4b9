# `make` lists the targets. Each does the set-up it needs; PYTHON=... chooses the interpreter, ARGS=... is handed on.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup ready demo test lint format types zip wheel bench clean

PYTHON ?=
ARGS ?=
export PYTHON

# Spark finds its Java and Python by these settings.
ENV := . .venv/env.sh &&
BIN := .venv/bin

help: ## List the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	| while IFS='|' read -r target text; do \
	    [[ $$target != *bench || -d benchmarks ]] || continue; printf '%-14s %s\n' "$$target" "$$text"; done

setup: ## Make .venv: packages, a Java where none is found, Delta's jars
	@bash scripts/setup.sh

ready:
	@bash scripts/setup.sh --quiet

demo: ready ## Run the demo
	@$(ENV) $(BIN)/lakestrata demo $(ARGS)

# A file is run by one worker, so that its tests share a Spark session; the slow files of jobs/ come first.
test: ready ## Run the tests (ARGS="-k tree" for some)
	@$(ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: ready ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: ready ## Repair style and formatting where a tool can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

# The folder of a checkout may have any name; the checker must see it under the package's.
types: ready ## Check the types (strict)
	@mkdir -p .build && ln -sfn .. .build/lakestrata
	@cd .build && ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p lakestrata

# Stored without compression, sorted and undated: the same sources give the same bytes.
define ZIP
import pathlib, zipfile
folders = ["conf", "jobs", "kmeans", "schemas", "udfs"]
files = list(pathlib.Path(".").glob("__*__.py"))
for folder in folders:
    files += [p for p in pathlib.Path(folder).rglob("*") if p.suffix in (".py", ".npz") or (folder == "conf" and p.suffix == ".yaml")]
pathlib.Path("dist").mkdir(exist_ok=True)
with zipfile.ZipFile("dist/lakestrata.zip", "w") as archive:
    for path in sorted(files):
        entry = zipfile.ZipInfo(f"lakestrata/{path.as_posix()}")
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, path.read_bytes())
print(f"dist/lakestrata.zip: {len(files)} files")
endef
export ZIP

zip: ready ## Build dist/lakestrata.zip for spark-submit --py-files
	@$(BIN)/python -c "$$ZIP"

wheel: ready ## Build the wheel into dist/
	@rm -rf build
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

bench: ready ## Run the benchmarks
	@$(ENV) $(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove .venv and all that was built
	@rm -rf .venv .build build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis spark-warehouse metastore_db
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

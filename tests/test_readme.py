"""What the README shows works: its commands, its recipes, its tables; and so do the recipes that come along."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

import lakestrata
from lakestrata.jobs import cli
from lakestrata.jobs.recipe import load_recipe, packaged_recipes
from lakestrata.udfs.encoders import convolution, sentence

README = Path(lakestrata.__file__).with_name("README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = typer.main.get_command(cli.app).commands


def commands_shown():
    """Calls of the command line, in blocks and in running text: each a list of words after the program's name."""
    lines = [line for _, block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        found = re.match(r"(?:.*\s__main__\.py|lakestrata)\s+(.+)", line)
        if found:
            yield shlex.split(found[1].split(" > ")[0])
        elif found := re.search(r'make demo ARGS="(.*)"', line):
            yield ["demo", *shlex.split(found[1])]


def settings_shown():
    return [words[i + 1] for words in commands_shown() for i, word in enumerate(words) if word == "--set"]


def blocks(language):
    return [block for kind, block in BLOCKS if kind == language]


@pytest.mark.parametrize("words", list(commands_shown()), ids=" ".join)
def test_commands_and_options_exist(words):
    parameters = COMMANDS[words[0]].params
    known = {name for parameter in parameters for name in parameter.opts} | {"--help"}
    assert {word for word in words[1:] if word.startswith("-")} <= known
    COMMANDS[words[0]].make_context(words[0], words[1:])  # parses, runs nothing


def test_every_command_is_told_of():
    assert set(COMMANDS) <= {word for words in commands_shown() for word in words} | set(
        re.findall(r"^\| (\w+) \|", README, re.MULTILINE)
    )


@pytest.mark.parametrize("setting", [s for s in settings_shown() if "..." not in s])
def test_settings_fit_a_recipe(setting):
    load_recipe("images", [setting])


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: yaml.safe_load(block)["name"])
def test_yaml_blocks_are_recipes(block, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(block, encoding="utf-8")
    load_recipe(str(path))


def test_the_full_recipe_shows_every_key(tmp_path):
    shown = yaml.safe_load(blocks("yaml")[0])
    recipe = load_recipe("images")
    for section in ("source", "embed", "cluster", "sample"):
        assert set(shown[section]) == set(type(getattr(recipe, section)).model_fields)


def test_python_blocks_import_what_exists():
    for block in blocks("python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                exec(compile(ast.Module([node], []), "README.md", "exec"), {})


def test_tables_are_those_declared():
    from lakestrata.schemas import tables

    made = {
        tables.embeddings("bigint").name,
        tables.assignments("bigint", 2).name,
        tables.curated("bigint", 2, []).name,
    }
    fixed = (tables.ENCODERS, tables.QUARANTINE, tables.CENTROIDS, tables.QUOTAS, tables.EVALUATION, tables.RUNS)
    made |= {table.name for table in fixed}
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == made


@pytest.mark.parametrize("name", packaged_recipes())
def test_recipes_that_come_along_are_valid_and_described(name):
    recipe = load_recipe(name)
    assert recipe.sample is not None
    assert recipe.name == name
    encoder = convolution if recipe.embed.encoder == "convolution" else sentence
    encoder.Settings.parse(recipe.embed.params)
    assert packaged_recipes()[name].startswith("# ")

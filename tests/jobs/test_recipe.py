"""Recipes: every mistake is told at once, in one line each."""

from __future__ import annotations

import pytest
import yaml

from lakestrata.jobs.recipe import (
    Cluster,
    Embed,
    Sample,
    config_hash,
    load_recipe,
    packaged_recipes,
    semantic,
)
from lakestrata.schemas.errors import ConfigurationError

SOURCE = {"table": "lake.raw.flowers", "content": "image", "kind": "image"}
GOOD = {"name": "flowers", "source": SOURCE, "work": "lake.curation"}
OWN = {"name": "flowers", "embeddings": {"table": "lake.vectors"}, "work": "lake.curation"}


@pytest.fixture
def problems(tmp_path):
    """What is wrong with a recipe, given as a mapping or as YAML text; paths are cut off."""

    def tell(values, *settings):
        path = tmp_path / "r.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        with pytest.raises(ConfigurationError) as caught:
            load_recipe(str(path), settings)
        assert all("\n" not in problem for problem in caught.value.problems)
        return [problem.replace(f"{path}: ", "") for problem in caught.value.problems]

    return tell


def test_a_good_recipe_has_the_defaults_that_suit_most(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    recipe = load_recipe(str(path), ["sample.size=10", "cluster.resampling.rounds=3", "cluster.resampling.random=[4]"])
    assert recipe.source.id == "id"
    assert recipe.sample == Sample(size=10)
    assert recipe.embed == Embed()
    assert recipe.cluster.levels == "auto"
    assert recipe.cluster.resampling.rounds == 3
    assert (recipe.cluster.resampling.strategy, recipe.cluster.resampling.sizes) == ("random", [4])


def test_one_level_needs_no_list(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**OWN, "cluster": {"levels": 7, "resampling": {"closest": 3}}}))
    cluster = load_recipe(str(path)).cluster
    assert (cluster.levels, cluster.resampling.sizes) == ([7], [3])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clustr": {}}, "clustr: unknown key: did you mean cluster?"),
        ({"cluster": {"level": [2]}}, "cluster.level: unknown key: did you mean levels?"),
        ({"cluster": {"resampling": {"nearest": 4}}}, "cluster.resampling.nearest: unknown key (known: rounds, "),
        ({"source": {**SOURCE, "colour": 1}}, "source.colour: unknown key (known: table, id, content, kind, "),
        ({"work": None}, "work: should be a valid string, not None."),
        ({"name": "two words"}, "name: String should match pattern"),
        ({"sample": {"size": "10"}}, "sample.size: should be a valid integer, not '10'."),
        ({"sample": {"size": 0}}, "sample.size: should be greater than or equal to 1, not 0."),
        ({"sample": {}}, "sample.size: missing: this key is needed."),
        ({"sample": {"size": 1, "temperature": 2}}, "sample.temperature: should be less than or equal to 1, not 2"),
        ({"sample": {"size": 1, "strategy": "best"}}, "sample.strategy: should be 'random' or 'closest', not 'best'."),
        ({"cluster": {"seed": 1.5}}, "cluster.seed: should be a valid integer, not 1.5."),
        ({"cluster": {"metric": "L1"}}, "cluster.metric: should be 'auto', 'l2' or 'cosine', not 'L1'."),
        ({"cluster": {"levels": [5, 20]}}, "cluster: levels=[5, 20] should fall from the bottom to the top"),
        (
            {"cluster": {"levels": [9, 3], "resampling": {"closest": [2]}}},
            "cluster: resampling names 1 sizes for 2 levels",
        ),
        (
            {"cluster": {"resampling": {"closest": 1, "random": 1}}},
            "cluster.resampling: give closest or random, not both",
        ),
        ({"source": None}, "give source (items to embed) or embeddings (your own vectors), one of them."),
        ({"embeddings": {"table": "t"}}, "give source (items to embed) or embeddings (your own vectors), one of them."),
        ({"source": {**SOURCE, "kind": "sound"}}, "source.kind: should be 'image' or 'text', not 'sound'."),
        ({"source": {**SOURCE, "kind": "text"}}, "embed.encoder='convolution' does not take source.kind='text': "),
        ({"embed": {"encoder": "a/b"}}, "embed.encoder='a/b' does not take source.kind='image': "),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(problems, changes, told):
    found = problems({**GOOD, **changes})
    assert len(found) == 1
    assert found[0].startswith(told)


@pytest.mark.parametrize("levels", ["several", [5, 0], [], [2.5], None])
def test_levels_are_whole_numbers(problems, levels):
    found = problems({**GOOD, "cluster": {"levels": levels}})
    assert found
    assert all(problem.startswith("cluster.levels") for problem in found)


def test_all_mistakes_are_told_at_once(problems):
    found = problems({"name": "a", "source": {"table": 1}, "wrok": "w", "sample": {"size": -1}}, "cluster.sede=1", "x")
    starts = [
        "--set x: write key=value",
        "source.table: should be a valid string, not 1.",
        "source.content: missing",
        "source.kind: missing",
        "work: missing",
        "wrok: unknown key: did you mean work?",
        "sample.size: should be greater",
        "cluster.sede: unknown key: did you mean seed?",
    ]
    for start in starts:
        assert sum(problem.startswith(start) for problem in found) == 1
    assert len(found) == len(starts)


def test_embed_means_nothing_beside_embeddings(problems):
    assert problems({**OWN, "embed": {"normalize": "none"}}) == [
        "embed does nothing where embeddings are given: leave it out."
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [unclosed", "not YAML: "),
        ("- a\n- b\n", "a recipe is a mapping of keys to values"),
        ("", "a recipe is a mapping of keys to values"),
    ],
)
def test_what_is_no_recipe_is_told(problems, text, told):
    assert problems(text)[0].startswith(told)


def test_a_missing_file_names_the_recipes_there_are():
    with pytest.raises(ConfigurationError, match=r"nowhere.yaml: no such file.*there are: .*demo"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("sample.size", "--set sample.size: write key=value, as in --set sample.size=1000."),
        ("=3", "--set =3: write key=value"),
        ("name.first=a", "--set name.first=a: name has no keys below it."),
        ("where=[", "--set where=[: the value is not YAML; quote it."),
        ("sample.size=ten", "sample.size: should be a valid integer, not 'ten'."),
    ],
)
def test_a_setting_that_cannot_be_is_told(problems, setting, told):
    assert problems(GOOD, setting)[0].startswith(told)


@pytest.mark.parametrize("name", packaged_recipes())
def test_recipes_that_come_along_are_right(name):
    recipe = load_recipe(name)
    assert recipe.sample is not None
    assert packaged_recipes()[name].startswith("# ")


def test_the_hash_covers_what_changes_the_answer_and_nothing_else():
    def digest(**changes):
        return config_hash({"cluster": semantic(Cluster(**changes))})

    same = digest()
    assert digest(scratch="table", driver_bytes=1) == same
    for change in (
        {"levels": [3]},
        {"metric": "cosine"},
        {"max_iter": 9},
        {"tol": 0.0},
        {"seed": 1},
        {"resampling": None},
    ):
        assert digest(**change) != same
    kept = semantic(Embed())
    assert kept.keys() == {"encoder", "params", "normalize", "seed"}
    assert semantic(Embed(device="cuda", batch_size=1, rows_per_commit=2)) == kept
    assert semantic(None) is None


def test_the_hash_covers_the_version_of_the_algorithm(monkeypatch):
    before = config_hash({})
    monkeypatch.setattr("lakestrata.jobs.recipe.ALGORITHM_VERSION", 99)
    assert config_hash({}) != before

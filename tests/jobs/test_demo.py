"""The demo, as a newcomer runs it."""

from __future__ import annotations

import pytest

pytest.importorskip("delta")
pytest.importorskip("sklearn")
pytest.importorskip("torch")
pytest.importorskip("PIL")
pytest.importorskip("matplotlib")

from lakestrata.jobs.cli import main
from lakestrata.jobs.demo import evenness
from lakestrata.jobs.recipe import load_recipe
from lakestrata.jobs.store import DeltaTable


def labels_of(spark, path):
    return DeltaTable(spark, str(path)).read().toArrow()["digit"].to_numpy()


def test_the_demo_makes_a_lake_more_even(spark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--set", "cluster.resampling.rounds=3"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    lake, curated = (
        labels_of(spark, tmp_path / "demo" / "source"),
        labels_of(spark, tmp_path / "demo" / "curated"),
    )
    assert len(curated) == load_recipe("demo").sample.size
    assert evenness(curated) > evenness(lake)
    for line in ("in the lake", "curated", f"{evenness(lake):.3f}", f"{evenness(curated):.3f}"):
        assert line in told
    assert (tmp_path / "demo" / "before_and_after.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]

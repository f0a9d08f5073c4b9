"""The same tests over Spark Connect, which serverless platforms are reached by."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("delta")
pytest.importorskip("grpc")

TESTS = Path(__file__).parents[1]
ESSENTIAL = (
    "rows_in_are or every_commit or tree_adds_up or quotas_add_up or run_again or mistakes_in_the_input "
    "or members_above or unusable or assigned_at_every_level or blocks_in_files or split_levels_add_up "
    "or tells_by_how_much"
)


@pytest.mark.skipif("SPARK_REMOTE" in os.environ, reason="this is Spark Connect already")
def test_the_essential_tests_pass_over_spark_connect():
    names = ("jobs/test_pipeline.py", "jobs/test_engine.py", "jobs/test_evaluate.py", "udfs/test_points.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        *(str(TESTS / name) for name in names),
        "-p",
        "no:cacheprovider",
        "-q",
        "-k",
        ESSENTIAL,
    ]
    done = subprocess.run(
        command,
        cwd=TESTS.parent,
        env={**os.environ, "SPARK_REMOTE": "local", "SPARK_TESTING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= ESSENTIAL.count(" or ") + 1

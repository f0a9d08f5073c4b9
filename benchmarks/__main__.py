"""Run the benchmarks one after the other, each in a process of its own, and write RESULTS.md and results.json."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.report import BENCHMARKS, write

HERE = Path(__file__).parent


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="which; all without any")
    names = parser.parse_args().names or list(BENCHMARKS)
    results = HERE / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    with tempfile.TemporaryDirectory(prefix="lakestrata-bench-") as folder:
        for name in names:
            sys.stderr.write(f"{name}\n")
            found |= run(name, folder)
            results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(write(found, describe(), HERE / "RESULTS.md"))


def run(name: str, folder: str) -> dict[str, float]:
    """Figures of one benchmark; `folder` keeps data that several need."""
    out = Path(folder, "out.json")
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", folder, str(out)], check=True)
    figures: dict[str, float] = json.loads(out.read_text())
    return figures


main()

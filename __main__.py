"""Launcher for ``spark-submit --py-files lakestrata.zip __main__.py JOB --config ...`` and ``python -m lakestrata``."""

from lakestrata.jobs.cli import main

if __name__ == "__main__":
    main()

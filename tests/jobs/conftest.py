"""What the tests of the command line share."""

from __future__ import annotations

import logging

import pytest

from lakestrata.jobs.cli import main


@pytest.fixture
def ended(capsys, _own_logger):
    """Runs a command: its exit status, and the lines it wrote to standard output and error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(list(map(str, arguments)))
        written = capsys.readouterr()
        assert "Traceback" not in written.err
        return caught.value.code, written.out.splitlines(), written.err.splitlines()

    return run


@pytest.fixture
def _own_logger():
    """Takes back what the command line does to the package's logger."""
    logger = logging.getLogger("lakestrata")
    before = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = before

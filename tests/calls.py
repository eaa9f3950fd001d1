"""Calls of the command line within this process: no second interpreter, no second import of
torch.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

import pytest

from delineate.cli.command_line import main


def call(*words: object, cwd: Path | None = None) -> CompletedProcess[str]:
    """How ``delineate WORDS`` ends and what it prints; a traceback is a failure."""
    out, err = io.StringIO(), io.StringIO()
    command = ["delineate", *map(str, words)]
    with (
        mock.patch("sys.argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or Path.cwd()),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return CompletedProcess(command, int(end.value.code or 0), out.getvalue(), err.getvalue())


def run(*words: object) -> tuple[int, str]:
    """Exit code and everything printed."""
    done = call(*words)
    return done.returncode, done.stdout + done.stderr

"""The small commands of ``benchmarks/faults``, and a folder in which all of them have ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks" / part) for part in ("faults", "")]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    import small

    folder = tmp_path_factory.mktemp("finished")
    small.write_inputs(folder)
    with small.empty_figures():
        for command in small.COMMANDS.values():
            assert command(folder, lambda text: None) == 0
    return folder

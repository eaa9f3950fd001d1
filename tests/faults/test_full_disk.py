"""A disk that is full, broken or forbidden at some operation, and files that may not grow: one
sentence that names file and reason, nothing partial, and the command given again ends well. Every
operation is in ``benchmarks/faults/full_disk.py``.
"""

from __future__ import annotations

import errno
import shutil

import full_disk
import pytest
import small

from delineate.core.errors import OutputError


def test_an_evaluation_ends_well_on_a_bad_disk(finished):
    shutil.rmtree(finished / "scores")
    tried, _, faults = full_disk.judge(finished, "evaluate", every=1000, first=9)
    assert not faults and tried == 6


@pytest.mark.rounds
@pytest.mark.parametrize("command", list(small.COMMANDS))
def test_each_command_ends_well_on_a_bad_disk(tmp_path, command):
    folder = tmp_path / "work"
    small.write_inputs(folder)
    for name in small.COMMANDS:
        if name == command:
            break
        small.COMMANDS[name](folder, lambda text: None)
    tried, _, faults = full_disk.judge(folder, command, every=30 if command == "train" else 4)
    assert not faults and tried > 10


class Journal(full_disk.Disk):
    """A disk of which only the journal of predictions is damaged."""

    def _is_inside(self, path):
        return super()._is_inside(path) and str(path).endswith("predictions.jsonl")


@pytest.mark.rounds
def test_a_held_out_case_that_cannot_be_written_is_predicted_again(tmp_path):
    folder = tmp_path / "work"
    small.write_inputs(folder)
    with small.empty_figures(), Journal(folder, 1, errno.EIO), pytest.raises(OutputError):
        small.COMMANDS["train"](folder, lambda text: None)
    with small.empty_figures():
        assert small.COMMANDS["train"](folder, lambda text: None) == 0

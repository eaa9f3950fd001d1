"""After a power cut at any moment no saved file is lost or partial, and the command ends as without
it. Every state of every command is in ``benchmarks/faults/power_cuts.py``.
"""

from __future__ import annotations

import random
import shutil

import power_cuts
import pytest
import recording
import small

from delineate.core import atomic


def test_a_prediction_survives_a_power_cut_at_any_moment(finished):
    shutil.rmtree(finished / "masks")
    found = power_cuts.judge(finished, "predict", whole=12, sample=0.3, by_cli=True)
    assert not found.faults and found.states > 30 and found.repeated > 2


@pytest.mark.rounds
@pytest.mark.parametrize("command", list(small.COMMANDS))
def test_each_command_survives_a_power_cut_at_any_moment(tmp_path, command):
    small.write_inputs(tmp_path)
    for name in small.COMMANDS:
        if name == command:
            break
        small.COMMANDS[name](tmp_path, lambda text: None)
    found = power_cuts.judge(tmp_path, command, whole=20 if command == "train" else 2)
    assert not found.faults and found.states > 5


def test_the_model_of_a_disk_loses_what_is_not_synced(tmp_path):
    """A rename without a sync of the data gives an empty file, and one without a sync of the folder
    may not have happened; the writer of the program does both.
    """
    (tmp_path / "mask").write_bytes(b"old")
    with recording.Recording(tmp_path) as careless:
        (tmp_path / "new").write_bytes(b"result")
        (tmp_path / "new").replace(tmp_path / "mask")
    left = {tree.get("mask") for _, tree in recording.states(careless, random.Random(0))}
    assert {b"", b"old", b"result", bytes(6)} <= left
    with recording.Recording(tmp_path) as careful:
        atomic.write_bytes(tmp_path / "mask", b"better")
    moments = list(recording.states(careful, random.Random(0)))
    assert {tree.get("mask") for _, tree in moments} == {b"result", b"better"}
    assert all(tree["mask"] == b"better" for m, tree in moments if m == len(careful.operations))

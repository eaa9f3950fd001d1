"""``--untrusted`` of every command that reads images: they are read in a child process, also by the
worker processes, and the results are the same bytes.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import get_type_hints

import psutil
import pytest
from tests.calls import call
from tests.commands.test_predict import model
from tests.scans import write_cohort

import delineate as dl
from delineate.commands import options
from delineate.commands.check import check
from delineate.commands.convert import convert
from delineate.commands.evaluate import evaluate
from delineate.commands.info import info
from delineate.commands.plan import plan
from delineate.commands.predict import predict
from delineate.commands.predict.outlook import outlook as predict_outlook
from delineate.commands.slices.export_slices import export_slices
from delineate.commands.train.outlook import outlook as train_outlook
from delineate.commands.train.train import train
from delineate.commands.view import view
from delineate.execution import local
from delineate.formats import apart, files

WITH_IT = {
    name
    for name, kind in vars(options).items()
    if name.endswith("Options") and "untrusted" in {one.name for one in fields(kind)}
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrusted")
    write_cohort(folder / "cohort", 3)
    model(folder / "m.model", ("MR",), drop_channel_p=0)
    return folder


COMMANDS = {
    "info": "info {0}/cohort/images/c0.nii.gz",
    "convert": "convert {0}/cohort/images/c0.nii.gz {0}/out.nrrd",
    "check": "check {0}/cohort -o {0}/checked --workers 1",
}
FUNCTIONS = (
    *(info, convert, check, plan, evaluate, predict, predict_outlook, train, train_outlook),
    *(export_slices, view),
)


def test_every_command_with_the_option_uses_it():
    kinds = {get_type_hints(one)["options"].__name__ for one in FUNCTIONS}
    assert kinds == WITH_IT - {"ReadingOptions"}
    assert all(hasattr(one, "__wrapped__") for one in FUNCTIONS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_reads_in_the_child(folder, name):
    with apart.untrusted():
        files.read_grid(folder / "cohort" / "images" / "c0.nii.gz")
    child = psutil.Process(apart._IDLE[-1]._process.pid)
    before = child.io_counters().read_chars
    done = call(*COMMANDS[name].format(folder).split(), "--untrusted")
    assert done.returncode == 0, done.stderr
    assert child.io_counters().read_chars > before + 100
    assert not apart.is_untrusted()


def test_masks_are_the_same_bytes(folder):
    masks = []
    for words in ((), ("--untrusted",)):
        out = folder / f"masks_{len(words)}"
        scans = folder / "cohort" / "images"
        done = call("predict", folder / "m.model", scans, "-o", out, "--device", "cpu", *words)
        assert done.returncode == 0, done.stderr
        masks.append({path.name: path.read_bytes() for path in out.glob("*.nii.gz")})
    assert len(masks[0]) == 3 and masks[0] == masks[1]


def test_python_functions_read_in_the_child_too(folder):
    path = folder / "cohort" / "images" / "c0.nii.gz"
    assert dl.read(path, untrusted=True).shape == (20, 18, 16)
    predicted = dl.predict(folder / "m.model", path, device="cpu", untrusted=True)
    assert predicted.shape == (20, 18, 16)


def test_worker_processes_know_it():
    with apart.untrusted():
        known = local.run(os.getenv, [apart.UNTRUSTED] * 2, names=["a", "b"], workers=2)
    assert [outcome.value for outcome in known] == ["1", "1"]

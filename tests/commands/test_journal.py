"""A batch of predictions that is killed, damaged or changed does again what is missing, no more."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.commands.test_predict import model
from tests.scans import scan

from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict
from delineate.commands.predict.journal import NAME
from delineate.core.errors import OutputError
from delineate.execution.claims import claimed

OPTIONS = PredictOptions(device="cpu", backend="torch")
CASES = ("a", "b", "c")


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    for seed, name in enumerate(CASES):
        scan(folder / "scans" / f"{name}.nii.gz", seed=seed)
    model(folder / "m.model", ("MR",), drop_channel_p=0)
    return folder


@pytest.fixture
def batch(scans, tmp_path) -> Path:
    """A copy of the scans, and their finished predictions in ``out``."""
    shutil.copytree(scans, tmp_path / "batch")
    done(tmp_path / "batch")
    return tmp_path / "batch"


def done(folder: Path, options: PredictOptions = OPTIONS) -> list[str]:
    """The cases that a call segments, those whose results it keeps left out."""
    seen: set[str] = set()

    def follow(stage: str, done: float, total: float, note: str) -> None:
        if stage != "check results":
            seen.add(note.split(",")[0])

    inputs = [folder / "scans"]
    report = predict(folder / "m.model", inputs, folder / "out", options, progress=follow)
    assert not report.failures and [o.name for o in report.outcomes] == list(CASES)
    record = json.loads((folder / "out" / "predictions.json").read_text())
    assert set(record["cases"]) == set(CASES) and "writing" not in record
    return sorted(seen)


def masks(folder: Path) -> dict[str, bytes]:
    return {case: (folder / "out" / f"{case}.nii.gz").read_bytes() for case in CASES}


def test_the_same_call_does_nothing_again_and_says_so(batch):
    said: list[str] = []
    before = masks(batch)
    predict(batch / "m.model", [batch / "scans"], batch / "out", OPTIONS, say=said.append)
    assert masks(batch) == before and any("3 of 3 scans" in text for text in said)
    assert done(batch) == []
    assert done(batch, replace(OPTIONS, again=True)) == list(CASES)
    assert len((batch / "out" / NAME).read_text().splitlines()) == len(CASES)


def test_what_is_missing_damaged_or_changed_is_done_again(batch):
    out = batch / "out"
    whole = masks(batch)
    (out / "a.nii.gz").unlink()
    assert done(batch) == ["a"] and masks(batch) == whole
    raw = bytearray(whole["b"])
    raw[len(raw) // 2] ^= 1  # one bit
    (out / "b.nii.gz").write_bytes(raw)
    assert done(batch) == ["b"] and masks(batch) == whole
    scan(batch / "scans" / "c.nii.gz", seed=9)
    assert done(batch) == ["c"] and masks(batch)["c"] != whole["c"]
    # Options that change a mask, and another model.
    assert done(batch, replace(OPTIONS, mirror=True)) == list(CASES)
    assert done(batch, replace(OPTIONS, mirror=True, ram_bytes=4 << 30)) == []
    model(batch / "m.model", ("MR",), drop_channel_p=0, dropout=0.1)
    assert done(batch, replace(OPTIONS, mirror=True)) == list(CASES)


def test_a_call_that_is_killed_goes_on_where_it_was(scans, tmp_path):
    folder = tmp_path / "batch"
    shutil.copytree(scans, folder)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from delineate.commands.options import PredictOptions\n"
        "from delineate.commands.predict import journal, predict\n"
        "real, added = journal.Journal.add, []\n"
        "def add(self, case, *rest):\n"
        "    if len(added) == 1: os.kill(os.getpid(), 9)\n"
        "    real(self, case, *rest); added.append(case)\n"
        "journal.Journal.add = add\n"
        "folder = Path(sys.argv[1])\n"
        "predict(folder / 'm.model', [folder / 'scans'], folder / 'out',\n"
        "        PredictOptions(device='cpu', backend='torch'))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len((folder / "out" / NAME).read_text().splitlines()) == 1
    assert done(folder) == list(CASES[1:])
    assert not [p for p in os.listdir(folder / "out") if p.startswith(".")]


def test_two_calls_into_one_folder_exclude_each_other(batch):
    with claimed(batch / "out" / "running.json"), pytest.raises(OutputError, match="works here"):
        done(batch)

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
from delineate.commands.predict.crashes import CRASHED
from delineate.commands.predict.crashes import NOTE as LOOKED_AT
from delineate.commands.predict.journal import BEGUN, NAME, Journal
from delineate.core.errors import LayoutError, OutputError
from delineate.core.inputs import json_text
from delineate.core.manifest import Case, Source
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


def test_an_edited_mask_is_replaced_only_with_overwrite(batch):
    whole = masks(batch)
    edited = batch / "out" / "b.nii.gz"
    scan(edited, seed=5)
    corrected = edited.read_bytes()
    for options in (OPTIONS, replace(OPTIONS, again=True)):
        with pytest.raises(OutputError, match=r"b\.nii\.gz: exists.*replace it with --overwrite"):
            done(batch, options)
    assert edited.read_bytes() == corrected
    assert done(batch, replace(OPTIONS, overwrite=True)) == ["b"] and masks(batch) == whole


def test_foreign_files_are_replaced_only_with_overwrite(scans, tmp_path):
    folder = tmp_path / "batch"
    shutil.copytree(scans, folder)
    for name, text in (("a.nii.gz", "mine"), ("predictions.json", "[]")):
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / name).write_text(text)
        with pytest.raises(OutputError, match="replace it with --overwrite"):
            done(folder)
    assert done(folder, replace(OPTIONS, overwrite=True)) == list(CASES)


def test_a_case_at_which_a_call_died_is_read_apart(batch):
    """Until it is finished; its files may be half replaced, so they are no edited ones."""
    out, whole = batch / "out", masks(batch)
    case = Case("b", "b", (Source("b.nii.gz"),))
    Journal(out, "", OPTIONS).begin(case)
    scan(out / "b.nii.gz", seed=5)
    assert Journal(out, "", OPTIONS).died_at(case)
    said: list[str] = []
    report = predict(batch / "m.model", [batch / "scans"], out, OPTIONS, say=said.append)
    assert not report.failures and masks(batch) == whole
    assert any(text.startswith("case b: an earlier call ended at it") for text in said)
    assert not Journal(out, "", OPTIONS).died_at(case) and not (out / BEGUN).exists()


def test_nothing_is_counted_as_done_in_a_folder_that_was_moved_away(scans, tmp_path):
    folder = tmp_path / "batch"
    shutil.copytree(scans, folder)

    def move(stage: str, done: float, total: float, note: str) -> None:
        if done == 1 and (folder / "out").exists():
            (folder / "out").rename(folder / "moved")

    with pytest.raises(OutputError, match=r"out: was removed or moved while this process worked"):
        predict(folder / "m.model", [folder / "scans"], folder / "out", OPTIONS, progress=move)
    assert not (folder / "out" / "predictions.json").exists()
    # The first case may have been in writing meanwhile, which makes its folder.
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "moved" / "running.json").unlink()  # of this process, which has not ended
    (folder / "moved").rename(folder / "out")
    assert "c" in done(folder)


# Segments a folder with a reader that crashes at the voxels of one scan; as this is a file, the
# processes that are started crash too.
CRASHING = """
import os, sys
from pathlib import Path
from delineate.formats import nifti

read = nifti.read
nifti.read = lambda path, *rest: os.abort() if Path(path).name == "b.nii.gz" else read(path, *rest)

from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    options = PredictOptions(device="cpu", backend="torch")
    done = predict(folder / "m.model", [folder / "scans"], folder / "out", options)
    print([str(one.error) for one in done.failures])
"""


@pytest.mark.rounds
def test_a_reader_that_crashes_costs_its_case_at_the_next_call(scans, tmp_path):
    folder = tmp_path / "batch"
    shutil.copytree(scans, folder)
    (tmp_path / "crashing.py").write_text(CRASHING)
    command = [sys.executable, str(tmp_path / "crashing.py"), str(folder)]
    first = subprocess.run(command, capture_output=True, check=False)
    assert first.returncode == -signal.SIGABRT
    for _ in range(2):  # the case stays known until it is finished
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ended.stdout == "['case b: its process crashed (signal 6)']\n"
        names = {path.name for path in (folder / "out").iterdir()}
        assert {"a.nii.gz", "c.nii.gz"} < names and "b.nii.gz" not in names


# As above, with a reader that crashes while it recognises a file.
LOOKING = CRASHING.replace(
    CRASHING[CRASHING.index("read =") : CRASHING.index("from delineate.commands.options")],
    """kind_of = nifti.kind_of
nifti.kind_of = lambda head: os.abort() if b"crash" in head else kind_of(head)

""",
)


@pytest.mark.rounds
def test_a_crash_while_scans_are_looked_for_costs_its_file_at_the_next_call(scans, tmp_path):
    folder = tmp_path / "batch"
    shutil.copytree(scans, folder)
    (folder / "scans/bad.nii.gz").write_bytes(b"crash")
    (tmp_path / "looking.py").write_text(LOOKING)
    command = [sys.executable, str(tmp_path / "looking.py"), str(folder)]
    first = subprocess.run(command, capture_output=True, check=False)
    assert first.returncode == -signal.SIGABRT
    for _ in range(2):
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "bad.nii.gz: its process crashed (signal 6) while it was read" in ended.stdout
        names = {path.name for path in (folder / "out").iterdir()}
        assert names >= {"a.nii.gz", "b.nii.gz", "c.nii.gz", CRASHED}
        assert LOOKED_AT not in names
    (folder / "scans/bad.nii.gz").write_bytes(b"no scan")
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "signal 6" not in ended.stdout and "bad.nii.gz" in ended.stdout


def test_a_file_at_which_the_search_died_is_read_apart_and_a_sound_one_is_used(batch):
    out, whole = batch / "out", masks(batch)
    path = str(batch / "scans/b.nii.gz")
    (out / LOOKED_AT).write_text(json_text({"path": path}))
    said: list[str] = []
    report = predict(batch / "m.model", [batch / "scans"], out, OPTIONS, say=said.append)
    assert not report.failures and masks(batch) == whole
    assert any(text.startswith(f"{path}: an earlier call died after it") for text in said)
    assert not (out / LOOKED_AT).exists() and not (out / CRASHED).exists()


def test_a_file_at_which_a_reader_crashed_is_refused_by_name_until_it_changes(batch):
    out, whole = batch / "out", masks(batch)
    path = batch / "scans/b.nii.gz"
    found = path.stat()
    known = {"why": "its process crashed", "state": [found.st_size, found.st_mtime_ns]}
    (out / CRASHED).write_text(json_text({"files": {str(path): known}}))
    (out / "b.nii.gz").unlink()
    report = predict(batch / "m.model", [batch / "scans"], out, OPTIONS)
    (failure,) = report.failures
    assert failure.name == "b" and "its process crashed while it was read" in str(failure.error)
    os.utime(path)
    assert done(batch) == ["b"] and masks(batch) == whole


def test_no_folder_is_left_where_no_scan_is_found(scans, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError):
        predict(scans / "m.model", [tmp_path / "empty"], tmp_path / "new/out", OPTIONS)
    assert not (tmp_path / "new").exists()

"""Files are complete under their final names: after a fault at any operation, and after a power cut
at any moment.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from delineate.core import atomic
from delineate.core.errors import OutputError
from delineate.core.inputs import read_json_lines
from delineate.core.store import Store

OPERATIONS = ("open", "fsync", "replace", "mkdir", "link")


def file(folder: Path) -> None:
    atomic.write_bytes(folder / "new" / "mask", b"new")


def kept(folder: Path) -> None:
    """A file over an older one, which is kept."""
    path = folder / "best"
    if not path.exists():
        path.write_bytes(b"old")
    atomic.write_bytes(path, b"new", before=folder / "best_before")


def line(folder: Path) -> None:
    atomic.append_line(folder / "log.jsonl", '{"step": 2}')


def case(folder: Path) -> None:
    image = np.arange(512, dtype=np.float32).reshape(1, 8, 8, 8)
    label = (image[0] > 400).astype(np.uint8)
    Store(folder).add("case", image, label, 2, (8, 8, 8))


class Faults:
    """Lets the N-th system call of the module under test fail."""

    def __init__(self, monkeypatch, number: int, code: int):
        self.left = number
        for name in OPERATIONS:
            real = getattr(os, name)

            def call(*args, _real=real, **keywords):
                self.left -= 1
                if self.left == 0:
                    raise OSError(code, os.strerror(code))
                return _real(*args, **keywords)

            monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(
    ("write", "is_written"),
    [
        (file, lambda folder: (folder / "new" / "mask").read_bytes() == b"new"),
        (kept, lambda folder: (folder / "best").read_bytes() == b"new"),
        (line, lambda folder: {"step": 2} in read_json_lines(folder / "log.jsonl")),
        (case, lambda folder: int(Store(folder).open("case").label[:].sum()) == 111),
    ],
    ids=["file", "kept", "line", "case"],
)
def test_a_fault_at_every_operation_is_named_and_leaves_the_old_file(
    write, is_written, code, tmp_path
):
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "log.jsonl").write_text('{"step": 1}\n')
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, number, code)
            said = ""
            try:
                write(folder)
            except OutputError as error:
                said = str(error)
        # A fault may be harmless: a folder that exists need not be made.
        assert str(folder) in said or is_written(folder), "a fault was not reported"
        if faults.left > 0:
            break
        names = [p for p in folder.rglob("*") if atomic.TEMPORARY.fullmatch(p.name)]
        assert not names, "a temporary is left"
        assert read_json_lines(folder / "log.jsonl")[0] == {"step": 1}
        write(folder)  # the same again, on a sound disk
        assert is_written(folder)
        assert not [p for p in folder.rglob("*") if atomic.TEMPORARY.fullmatch(p.name)]
    assert number > 2


def test_a_file_is_flushed_before_its_name_and_its_name_after(tmp_path, monkeypatch):
    seen: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        seen.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{handle}'))}")
        real_fsync(handle)

    def replace(old, new):
        seen.append(f"rename {Path(old).name}")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    atomic.write_bytes(tmp_path / "new" / "mask", b"voxels")
    made, written, renamed, named = seen
    assert made == f"sync {tmp_path.name}" and named == "sync new"
    assert written.removeprefix("sync ") == renamed.removeprefix("rename ")
    seen.clear()
    case(tmp_path)
    rename = next(n for n, what in enumerate(seen) if what.startswith("rename"))
    for name in ("image.b2nd", "label.b2nd", "case.npz"):
        assert f"sync {name}" in seen[:rename]
    assert seen[-1] == f"sync {tmp_path.name}"


def test_a_line_cut_off_by_a_power_cut_costs_no_other(tmp_path):
    log = tmp_path / "log.jsonl"
    atomic.append_line(log, '{"step": 1}')
    whole = log.read_bytes()
    for length in range(1, 12):
        log.write_bytes(whole + b'{"step": 2}'[:length])
        atomic.append_line(log, '{"step": 3}')
        steps = [line["step"] for line in read_json_lines(log)]
        assert steps == ([1, 2, 3] if length == 11 else [1, 3])


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    atomic.write_bytes(tmp_path / "a" / "mask.nii.gz", b"mask")
    shutil.copy(tmp_path / "a" / "mask.nii.gz", tmp_path / "a" / ".0a1b2c3d.tmp.mask.nii.gz")
    (tmp_path / ".0a1b2c3d.tmp.case" / "deep").mkdir(parents=True)
    kept = tmp_path / "a" / ".0a1b2c3.tmp.own"
    kept.write_text("a user's file")
    atomic.remove_temporaries(tmp_path)
    assert {p.name for p in tmp_path.rglob("*")} == {"a", "mask.nii.gz", kept.name}


def test_what_a_kill_left_of_one_file_is_removed_and_nothing_else(tmp_path):
    for name in (".0a1b2c3d.tmp.m.model", ".0a1b2c3d.tmp.other.model", "m.model", ".x.tmp.m.model"):
        (tmp_path / name).write_text("data")
    atomic.remove_temporaries_of(tmp_path / "m.model")
    assert {p.name for p in tmp_path.iterdir()} == {
        ".0a1b2c3d.tmp.other.model",
        "m.model",
        ".x.tmp.m.model",
    }


def test_the_file_before_is_kept(tmp_path, monkeypatch):
    path, before = tmp_path / "last", tmp_path / "last_before"
    for data in (b"1", b"2", b"3"):
        atomic.write_bytes(path, data, before=before)
    assert (path.read_bytes(), before.read_bytes()) == (b"3", b"2")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "links")))
    atomic.write_bytes(path, b"4", before=before)
    assert (path.read_bytes(), before.read_bytes()) == (b"4", b"3")
    assert {p.name for p in tmp_path.iterdir()} == {"last", "last_before"}


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path):
    name = "é" * 120 + ".nii.gz"
    atomic.write_bytes(tmp_path / name, b"mask")
    assert (tmp_path / name).read_bytes() == b"mask"


def test_the_size_limit_of_a_file_is_named(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="larger than files may be"):
            atomic.write_bytes(tmp_path / "mask", b"0" * 2000)
        with pytest.raises(OutputError, match="case"):
            rng = np.random.default_rng(0)
            image = rng.normal(size=(1, 32, 32, 32)).astype(np.float32)
            Store(tmp_path).add("case", image, image[0] > 0, 2, (32, 32, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())

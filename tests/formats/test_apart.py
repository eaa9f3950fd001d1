"""Files that are not trusted are read in a child process: with the same result, and its end is the
failure of one file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.faults.every import FAULTS
from benchmarks.faults.reading import place_of
from PIL import Image

from delineate.core.errors import DelineateError, FormatError
from delineate.core.grid import Grid
from delineate.core.inputs import reading_at_most
from delineate.core.labels import LabelSet
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import apart, files
from delineate.formats.label_files import names_in

GRID = Grid.from_spacing((4, 3, 2), (1.0, 1.5, 2.0))

SOUND = [
    one
    for one in FAULTS
    if one.accepted and one.reading in ("image", "pair") and "sound" in one.what
]
REFUSED = (
    "NIfTI: datatype 999",
    "NIfTI: gzip: 2 MB that unpack to 2.1 GB",
    "NRRD: voxels cut",
    "PNG: a changed byte of the pixels",
    "No regular file: a named pipe called a.nii.gz",
    "DICOM: a slice 1 mm off",
)


def is_equal(a: Volume, b: Volume) -> bool:
    facts = [(v.grid, v.unit, v.source, v.meta, v.array.dtype) for v in (a, b)]
    return (
        facts[0] == facts[1]
        and np.array_equal(a.array, b.array)
        # The order in memory decides the last bit of sums.
        and np.argsort(a.array.strides).tolist() == np.argsort(b.array.strides).tolist()
    )


def test_every_sound_file_is_read_alike(tmp_path):
    assert len({one.form for one in SOUND}) == 10
    for fault in SOUND:
        path = place_of(fault, tmp_path)
        here, grid = files.read(path), files.read_grid(path)
        with apart.untrusted():
            assert is_equal(files.read(path), here), fault
            assert files.read_grid(path) == grid, fault
            described = files.describe(path)
        assert described == files.describe(path), fault


def test_every_refusal_is_the_same_sentence(tmp_path):
    chosen = [one for one in FAULTS if f"{one.form}: {one.what}" in REFUSED]
    assert len(chosen) == len(REFUSED)
    for fault in chosen:
        path, said = place_of(fault, tmp_path), []
        for given in (False, True):
            with pytest.raises(DelineateError) as refused, apart.untrusted(given):
                files.read(path)
            said.append((type(refused.value), str(refused.value)))
        assert said[0] == said[1]


def test_colours_names_and_channels_come_back(tmp_path, monkeypatch):
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    mask = Volume(np.arange(24, dtype=np.uint8).reshape(4, 3, 2) % 3, GRID, "label")
    files.write(mask, tmp_path / "a.nii.gz", labels=LabelSet.from_names({1: "liver", 2: "spleen"}))
    monkeypatch.chdir(tmp_path)  # the child reads in the same folder
    with apart.untrusted():
        palette = files.read("a.png", by_index=True).meta["palette"]
        assert [palette[n] for n in range(3)] == [(0, 0, 0), (255, 0, 0), (0, 0, 255)]
        assert names_in("a.nii.gz") == {1: "liver", 2: "spleen"}
        assert files.read("a.nii.gz").meta["names"] == {1: "liver", 2: "spleen"}
        files.write(replace(mask, array=np.stack([mask.array] * 2), unit="a.u."), "two.nii.gz")
        assert np.array_equal(files.read(Source("two.nii.gz", channel=1)).array, mask.array)


def test_limits_of_memory_hold_in_the_child(tmp_path):
    path = tmp_path / "a.npz"
    files.write(Volume(np.zeros(GRID.shape, np.int16), GRID), path)
    with apart.untrusted(), reading_at_most(10), pytest.raises(DelineateError, match="by --ram"):
        files.read(path)


def test_a_reader_that_crashes_or_hangs_costs_one_file(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    files.write(Volume(np.ones(GRID.shape, np.int16), GRID), path)
    with apart.untrusted():
        files.read(path)
        process = apart._IDLE[-1]._process
        os.kill(process.pid, signal.SIGSTOP)
        threading.Timer(0.3, process.kill).start()
        said = r"a\.nii\.gz: damaged: its reader crashed \(signal 9\)"
        with pytest.raises(FormatError, match=said):
            files.read(path)
        # The next call has another child.
        assert files.read(path).array.sum() == 24
        os.kill(apart._IDLE[-1]._process.pid, signal.SIGSTOP)
        with (
            pytest.raises(FormatError, match="its reader did not finish"),
            monkeypatch.context() as m,
        ):
            m.setattr(apart, "CPU_S", 0.1)
            m.setattr(apart, "WALL_SHARE", 2)
            files.read(path)
        assert files.read(path).array.sum() == 24


def test_a_reader_that_needs_too_much_memory_costs_one_file(tmp_path, monkeypatch):
    shape = (400, 400, 100)
    grid = Grid.from_spacing(shape, (1.0, 1.0, 1.0))
    files.write(Volume(np.zeros(shape, np.float32), grid), tmp_path / "a.nii.gz")
    monkeypatch.setattr(apart, "COPIES", 0)
    monkeypatch.setattr(apart, "SPARE_BYTES", 1 << 25)
    with apart.untrusted(), pytest.raises(FormatError, match="does not fit into memory"):
        files.read(tmp_path / "a.nii.gz")


def test_the_switch_is_for_the_block_and_for_processes_that_it_starts(monkeypatch):
    monkeypatch.delenv(apart.UNTRUSTED, raising=False)
    with apart.untrusted(False):
        assert not apart.is_untrusted()
    with apart.untrusted():
        assert apart.is_untrusted() and os.environ[apart.UNTRUSTED] == "1"
        with apart.untrusted(False):
            assert apart.is_untrusted()
    assert not apart.is_untrusted()


def test_an_answer_names_its_error_or_the_order_of_its_arrays(tmp_path):
    head, arrays = apart._answer("files:sent_grid", [{"path": str(tmp_path / "none")}, None])
    assert not arrays and json.loads(head)["error"] == {
        "kind": "FormatError",
        "message": "no such file or folder",
        "path": str(tmp_path / "none"),
    }
    path = tmp_path / "a.nii"
    files.write(Volume(np.ones(GRID.shape, np.int16), GRID), path)
    head, (array,) = apart._answer("files:sent_volume", [{"path": str(path)}, None, False])
    sent = {"dtype": "<i2", "shape": [2, 3, 4], "axes": [2, 1, 0]}
    assert json.loads(head)["arrays"] == [sent] and array.shape == (2, 3, 4)


def test_a_child_whose_parent_has_ended_does_not_compute_for_ever():
    code = "from delineate.formats.apart import _limit_time\n_limit_time(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGXCPU

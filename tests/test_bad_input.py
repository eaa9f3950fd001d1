"""Ten kinds of bad input through the command line: one clear sentence naming the case, the right
exit code, and nothing lost.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from delineate.core.bundle import Bundle, Member
from delineate.networks.build import build, weights_of
from tests.calls import run
from tests.plans import small_plan
from tests.scans import AFFINE, mask, scan, write_cohort


def flat(text: str) -> str:
    """Tables break lines: compare without white space."""
    return "".join(text.split()).replace("│", "")


@pytest.fixture
def cohort(tmp_path) -> Path:
    return write_cohort(tmp_path / "cohort", 5)


@pytest.fixture
def model(tmp_path) -> Path:
    plan = small_plan()
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(
        tmp_path / "small.model"
    )
    return tmp_path / "small.model"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_truncated_gzip(tmp_path, model):
    for n in range(3):
        scan(tmp_path / "in" / f"s{n}.nii.gz", seed=n)
    broken = tmp_path / "in" / "s1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-300])
    code, said = run("predict", model, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1 and "s1" in said and "truncated" in said
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "s0.nii.gz",
        "s2.nii.gz",
        "predictions.json",
        "predictions.jsonl",
    }
    assert (
        "truncated"
        in json.loads((tmp_path / "out/predictions.json").read_text())["cases"]["s1"]["error"]
    )
    code, said = run("convert", broken, tmp_path / "x.nrrd")
    assert code == 2 and "truncated" in said and not (tmp_path / "x.nrrd").exists()


def test_label_without_image(tmp_path, cohort):
    (cohort / "images" / "c3.nii.gz").unlink()
    before = snapshot(cohort)
    code, said = run("check", cohort, "-o", tmp_path / "checked")
    assert code == 1 and "c3" in said
    found = json.loads((tmp_path / "checked/findings.json").read_text())["findings"]
    assert any("c3" in (f["case"] + f["message"]) and f["severity"] == "error" for f in found)
    assert snapshot(cohort) == before


def test_affine_with_nan(tmp_path, cohort, model):
    wrong = AFFINE.copy()
    wrong[0, 3] = np.nan
    image = nib.Nifti1Image(np.zeros((20, 18, 16), np.float32), AFFINE)
    image.header["srow_x"] = wrong[0]
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    path = cohort / "images" / "c2.nii.gz"
    raw = tmp_path / "raw.nii"
    with raw.open("wb") as file:
        image.header.write_to(file)
        file.write(b"\0" * 4 + np.zeros((20, 18, 16), np.float32).tobytes())
    scan(path)
    os.remove(path)
    subprocess.run(f"gzip -c {raw} > {path}", shell=True, check=True)
    code, said = run("check", cohort, "-o", tmp_path / "checked")
    assert code == 1 and "c2" in said and "notfinite" in flat(said).replace("-", "")
    code, said = run("predict", model, path, "-o", tmp_path / "out")
    assert code == 1 and "c2" in said and "not finite" in said


def test_mixed_series(tmp_path, model, real_data):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for n, path in enumerate(sorted((real_data / "hippocampus_dicom").glob("*.dcm"))):
        shutil.copyfile(path, folder / f"a{n}.dcm")
    for n, path in enumerate(sorted((real_data / "chaos_ct" / "DICOM_anon").glob("*.dcm"))[:5]):
        shutil.copyfile(path, folder / f"b{n}.dcm")
    code, said = run("convert", folder, tmp_path / "one.nii.gz")
    assert code == 2 and "series" in said and not (tmp_path / "one.nii.gz").exists()


def test_wrong_channel_count(tmp_path, model):
    path = scan(tmp_path / "two.nii.gz", np.zeros((20, 18, 16, 2), np.float32))
    code, said = run("predict", model, path, "-o", tmp_path / "out")
    assert code in (1, 2) and "two" in said and "found 2 channel" in said and "1 (MR)" in said
    assert not (tmp_path / "out" / "two.nii.gz").exists()


def test_unknown_label_value(tmp_path, cohort):
    (cohort / "labels.csv").write_text("value,name\n1,liver\n2,spleen\n")
    wild = mask()
    wild[0, 0, 0] = 9
    scan(cohort / "labels" / "c4.nii.gz", wild)
    code, said = run("check", cohort, "-o", tmp_path / "checked")
    assert code == 1 and "c4" in said and "9" in said
    assert "c4" not in (tmp_path / "checked/manifest.jsonl").read_text()


def test_full_disk(tmp_path, model):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs permission")
    try:
        (disk / "keep.txt").write_text("mine")
        (disk / "filler").write_bytes(b"x" * 8000)
        path = scan(tmp_path / "s.nii.gz")
        code, said = run("convert", path, disk / "s.nii")
        assert code == 2 and "disk is full" in said and "s.nii" in said
        code, said = run("predict", model, path, "-o", disk, "--format", "nii")
        assert code in (1, 2) and "disk is full" in said
        assert {p.name for p in disk.iterdir()} <= {
            "keep.txt",
            "filler",
            "predictions.json",
            "s.nii",
        }
        assert (disk / "keep.txt").read_text() == "mine"
        assert not list(disk.glob(".*tmp*"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_unreadable_file(tmp_path):
    from delineate.core.errors import InputError
    from delineate.formats import files

    path = scan(tmp_path / "secret.nii.gz")
    files.read(path)  # loads every module before the rights are given up
    path.chmod(0)
    libc = ctypes.CDLL(None, use_errno=True)
    was = libc.setfsuid(65534)  # root may read anything: let the file system see somebody else
    try:
        with pytest.raises(InputError, match=r"secret\.nii\.gz|[Pp]ermission|cannot be read"):
            files.read(path)
    finally:
        libc.setfsuid(was)
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    code, said = run("convert", tmp_path / "gone.nii.gz", tmp_path / "x.nii.gz")
    assert code == 2 and "gone.nii.gz" in said and not (tmp_path / "x.nii.gz").exists()


def test_bundle_with_a_changed_byte(tmp_path, model):
    raw = bytearray(model.read_bytes())
    raw[len(raw) // 2] ^= 1
    model.write_bytes(raw)
    path = scan(tmp_path / "s.nii.gz")
    for words in (("predict", model, path, "-o", tmp_path / "out"), ("info", model)):
        code, said = run(*words)
        assert code == 3 and "small.model" in said and "changed or damaged" in said
    assert not (tmp_path / "out").exists()


def test_empty_folder(tmp_path, model):
    (tmp_path / "nothing").mkdir()
    for words in (
        ("check", tmp_path / "nothing", "-o", tmp_path / "c"),
        ("train", tmp_path / "nothing", "-o", tmp_path / "m", "--budget", "40s"),
        ("predict", model, tmp_path / "nothing", "-o", tmp_path / "out"),
    ):
        code, said = run(*words)
        assert code == 2 and "nothing" in said
    assert not (tmp_path / "m").exists()


def test_wrong_words(tmp_path, cohort, model):
    for words, hint in (
        (("train", cohort, "-o", tmp_path / "m", "--budget", "soon"), "10m"),
        (("train", cohort, "-o", tmp_path / "m", "--budget", "40s", "--epochs", "3"), "exclude"),
        (("train", cohort, "-o", model, "--budget", "40s"), "exists already"),
        (("train", cohort, "-o", tmp_path, "--budget", "40s"), "is a folder"),
        (("predict", model, tmp_path / "absent", "-o", tmp_path / "out"), "does not exist"),
        (("predict", model, cohort, "-o", tmp_path / "out", "--format", "bmp"), "nrrd"),
        (("evaluate", tmp_path / "absent", cohort), "absent"),
    ):
        before = model.read_bytes()
        code, said = run(*words)
        assert code == 2 and hint in said, said
        assert model.read_bytes() == before

"""A real scan under the names of three years gives bit-equal masks, in every order of files."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.commands.test_predict import model

import delineate as dl
from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict
from delineate.core.errors import DelineateError

# Year -> names of FLAIR and T1 post-contrast, and the path of a file.
YEARS = {
    "2013": (("Flair", "T1c"), "{case}/VSD.Brain.XX.O.MR_{name}.1/VSD.Brain.XX.O.MR_{name}.1"),
    "2013 flat": (("Flair", "T1c"), "{case}/{name}_subtrMeanDivStd"),
    "2018": (("flair", "t1ce"), "{case}/{case}_{name}"),
    "2023": (("t2f", "t1c"), "{case}/{case}-{name}"),
}


@pytest.fixture(scope="module")
def crops(real_data):
    """The middle of FLAIR and T1 post-contrast of a glioma, with their affine."""
    folder = sorted((real_data / "brats2013").iterdir())[0]
    images = [nib.load(folder / f"{name}_subtrMeanDivStd.nii.gz") for name in ("Flair", "T1c")]
    middle = tuple(slice(n // 2 - 12, n // 2 + 12) for n in images[0].shape[:3])
    return [np.asarray(image.dataobj[middle]) for image in images], images[0].affine


def tree(root, crops, year):
    arrays, affine = crops
    names, path = YEARS[year]
    for array, name in zip(arrays, names, strict=True):
        target = root / f"{path.format(case='BraTS-GLI-00001-000', name=name)}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.astype(np.float32), affine), target)
    return root


def mask(out):
    (entry,) = json.loads((out / "predictions.json").read_text())["cases"].values()
    return np.asarray(nib.load(out / entry["file"]).dataobj), entry


@pytest.mark.parametrize(
    "trained",
    [
        pytest.param((("2013", (0, 1)), ("2023", (0, 1)), ("2018", (1, 0))), id="some"),
        pytest.param(
            tuple(itertools.product(YEARS, ((0, 1), (1, 0)))), id="all", marks=pytest.mark.rounds
        ),
    ],
)
def test_masks_are_bit_equal_under_every_name(trained, crops, tmp_path):
    masks: dict[tuple[int, ...], list[np.ndarray]] = {}
    for year, order in trained:
        channels = [YEARS[year][0][n] for n in order]
        path = model(tmp_path / f"{year}-{order}.model", tuple(channels), drop_channel_p=0)
        for other in YEARS if order == (0, 1) else (year,):
            out = tmp_path / "out" / f"{year}-{order}-{other}"
            root = tree(tmp_path / other, crops, other)
            predict(path, [root], out, PredictOptions(device="cpu"))
            found, entry = mask(out)
            masks.setdefault(order, []).append(found)
            files = [file for file in entry["inputs"].values() if file]
            assert len(files) == 2
            assert entry["input_sha256"] == {
                file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files
            }
    for found_masks in masks.values():
        assert all(np.array_equal(found_masks[0], other) for other in found_masks)
    # The channels matter: exchanged, they give another mask.
    assert not np.array_equal(masks[0, 1][0], masks[1, 0][0])


def test_a_third_image_with_one_of_the_meanings_is_refused(crops, tmp_path):
    root = tree(tmp_path / "in", crops, "2018")
    case = root / "BraTS-GLI-00001-000"
    (case / "BraTS-GLI-00001-000_T1_post.nii.gz").write_bytes(
        (case / "BraTS-GLI-00001-000_t1ce.nii.gz").read_bytes()
    )
    path = model(tmp_path / "m.model", ("t2f", "t1c"), drop_channel_p=0)
    with pytest.raises(DelineateError, match=r"t1c could be T1_post or t1ce"):
        predict(path, [root], tmp_path / "out", PredictOptions(device="cpu"))


def test_in_python_a_scan_of_another_image_is_refused(crops, tmp_path):
    path = model(tmp_path / "m.model", ("T1w",), drop_channel_p=0)
    scan = tmp_path / "p1_t1ce.nii.gz"
    nib.save(nib.Nifti1Image(crops[0][1].astype(np.float32), crops[1]), scan)
    network = dl.load(path, device="cpu")
    with pytest.raises(DelineateError, match="is T1 post-contrast by its header or name"):
        network.predict(scan)
    assert network.predict(scan, channels=["t1"]).shape == (24, 24, 24)

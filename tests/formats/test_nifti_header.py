"""Our header of NIfTI against nibabel's: of real, changed and random headers, and of new files."""

from __future__ import annotations

import io
import random
import warnings

import nibabel as nib
import numpy as np
import pytest

from delineate.core.errors import FormatError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files, nifti
from delineate.formats.nifti import header as own

MAKERS = {1: nib.Nifti1Header, 2: nib.Nifti2Header}
MUTANTS = 3000
ASKED = (
    "get_data_shape",
    "get_data_dtype",
    "get_zooms",
    "get_slope_inter",
    "get_sform",
    "get_qform",
)


def a_header(version, rng):
    """A header of nibabel's with random values that are possible, in either byte order."""
    header = MAKERS[version]()
    axes = rng.integers(1, 8)
    header.set_data_shape(rng.integers(1, 40, axes))
    header.set_data_dtype(rng.choice(["u1", "i2", "f4", "f8", "u8", "c8"]))
    header.set_zooms(rng.uniform(0.2, 5, axes))
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.2, 5, 3)
    affine[:3, 3] = rng.normal(0, 100, 3)
    header.set_sform(affine, int(rng.integers(0, 5)))
    header.set_qform(affine, int(rng.integers(0, 5)))
    header.set_xyzt_units(rng.choice(["unknown", "mm", "meter", "micron"]), "sec")
    header["scl_slope"], header["scl_inter"] = rng.choice([0, 1, 2.5, np.nan]), rng.normal()
    header["vox_offset"], header["intent_name"] = 352 + 16 * rng.integers(0, 9), b"SUV"
    return header.as_byteswapped() if rng.random() < 0.5 else header


def answer(header, name):
    """What a header says; None where it refuses."""
    try:
        return getattr(header, name)()
    except Exception:
        return None


def same(one, other):
    """Whether two answers are the same; one that is not finite is as good as none."""
    if isinstance(one, np.dtype):
        return one == other
    one, other = (np.array(np.nan if a is None else a, np.float64) for a in (one, other))
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return np.isfinite(one).all() == np.isfinite(other).all()
    return one.shape == other.shape and np.allclose(one, other, 1e-6, 1e-9)


@pytest.mark.parametrize("version", [1, 2])
@np.errstate(invalid="ignore")
def test_headers_say_what_nibabels_say(version):
    rng, bits = np.random.default_rng(version), random.Random(version)
    assert own.FIELDS[version].itemsize == MAKERS[version].template_dtype.itemsize
    compared = 0
    for _ in range(MUTANTS):
        block = bytearray(a_header(version, rng).binaryblock)
        for _ in range(bits.choice([0, 1, 1, 3])):
            at = bits.randrange(len(block))
            block[at] = bits.choice([0, 255, block[at] ^ 1 << bits.randrange(8)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = MAKERS[version](bytes(block), check=False)
        ours = own.Header.of(bytes(block), version)
        for field in ("dim", "datatype", "vox_offset", "intent_code", "intent_name", "bitpix"):
            assert np.array_equal(theirs[field], ours[field], equal_nan=field == "vox_offset")
        axes = int(ours["dim"][0])
        if not 1 <= axes <= 7 or ours["dim"][1 : axes + 1].min() < 1:
            continue
        compared += 1
        for name in ASKED:
            if name != "get_data_dtype" or int(ours["datatype"]) in own.TYPES:
                assert same(answer(theirs, name), answer(ours, name)), (name, bytes(block))
        if not theirs["sform_code"] and not theirs["qform_code"]:
            assert same(theirs.get_best_affine(), ours.get_best_affine())
        # nibabel knows no unit of space if that of time is not defined.
        if unit := answer(theirs, "get_xyzt_units"):
            assert unit[0] == ours.get_xyzt_units()[0]
    assert compared > MUTANTS / 2


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("swapped", [False, True])
def test_extensions_are_those_of_nibabel(tmp_path, kind, swapped):
    image = kind(np.zeros((3, 2, 2), np.uint8), np.eye(4))
    header = image.header.as_byteswapped() if swapped else image.header
    for content in (b"other", b"x" * 30):
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", content))
    path = tmp_path / ("a.img" if kind is nib.Nifti1Pair else "a.nii")
    nib.save(kind(np.zeros((3, 2, 2), np.uint8), np.eye(4), header), path)
    found = nifti.reading._header(path)[0]
    assert [one.content for one in found.extensions] == [b"other", b"x" * 30]
    assert {one.code for one in found.extensions} == {own.COMMENT}
    assert files.read(path).array.shape == (3, 2, 2)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", ">i2", "f4", ">f4", "f8", "f2", "?"]
)
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", [5, 40000])
def test_files_are_those_that_nibabel_writes(tmp_path, dtype, channels, size):
    """All bytes but the last digits of the quaternion are the same."""
    rng = np.random.default_rng(size)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [0.5, 2, 3]
    affine[:3, 3] = rng.normal(0, 100, 3)
    affine[0, 1] += 0.5 * (size == 5)
    shape = (size, 3, 2)
    array = rng.integers(0, 2, channels + shape).astype(dtype)
    volume = Volume(array, Grid(shape, affine, allow_shear=True), "SUV" if channels else "label")
    labels, step = None if channels else LabelSet.from_names({1: "liver"}), 0.5
    nifti.write(volume, tmp_path / "a.nii", labels, step)
    theirs = io.BytesIO()
    holder = nib.fileholders.FileHolder(fileobj=theirs)
    nifti.to_image(volume, labels, step).to_file_map({"image": holder})
    ours, version = (tmp_path / "a.nii").read_bytes(), 1 if size == 5 else 2
    fields = [own.Header.of(one, version).fields for one in (ours, theirs.getvalue())]
    np.testing.assert_allclose(*(one["quatern"] for one in fields), atol=1e-6)
    length = own.FIELDS[version].itemsize
    assert ours[length:] == theirs.getvalue()[length:]
    for name in fields[0].dtype.names:
        if name != "quatern":
            assert fields[0][name].tobytes() == fields[1][name].tobytes(), name
    again = files.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(again.array, array.astype(np.float32) * step)
    assert again.grid.distance_mm(volume.grid) < 1e-3


def test_an_extension_that_ends_early_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    for length in (0, -8, 4, 640):
        start = np.array([length, own.COMMENT], np.int32).tobytes()
        pair = raw[:344] + b"ni1\0" + b"\1\0\0\0" + start + bytes(8)
        pair = pair[:108] + np.float32(0).tobytes() + pair[112:]
        (tmp_path / "b.hdr").write_bytes(pair)
        (tmp_path / "b.img").write_bytes(bytes(8))
        with pytest.raises(FormatError, match="an extension of its header has"):
            files.read(tmp_path / "b.hdr")

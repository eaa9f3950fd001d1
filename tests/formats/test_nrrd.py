"""NRRD through pynrrd gives the volumes that ITK gives, for every header that ITK reads."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from delineate.core.errors import FormatError
from delineate.core.labels import LabelSet
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import files, itk, nrrd
from delineate.formats.label_files import read_label_file

VOXELS = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4, order="F")
BYTES = VOXELS.tobytes(order="F")
AXES = "type: short\ndimension: 3\nsizes: 6 5 4\nendian: little\n"
RAW = AXES + "encoding: raw\n"
COMPLEX = RAW.replace("3\nsizes: 6", "4\nsizes: 2 6") + "kinds: complex domain domain domain\n"
OBLIQUE = "space directions: (1,0.2,0) (-0.4,2,0) (0,0,3)\nspace origin: (1,2,3)\n"


def by_itk(path: Path) -> Volume:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    return itk.from_image(reader.Execute(), str(path))


def made(path: Path, header: str, data: bytes = BYTES) -> Path:
    path.write_bytes(b"NRRD0004\n" + header.encode() + b"\n" + data)
    return path


def assert_same(path: Path) -> Volume:
    ours, theirs = nrrd.read(path), by_itk(path)
    np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_allclose(ours.grid.affine, theirs.grid.affine, atol=1e-9)
    # SimpleITK does not tell colours from other vectors, 1 mm from no spacing, and spaces apart.
    if all("as ITK reads it" in note for note in ours.meta.get("notes", ())):
        ours.meta.pop("notes", None)
    meta = [
        {k: v for k, v in one.meta.items() if k not in ("channels", "spacing_known", "place_known")}
        for one in (ours, theirs)
    ]
    assert ours.array.dtype == theirs.array.dtype and meta[0] == meta[1]
    assert files.read_grid(path) == ours.grid
    return ours


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"], ids=str
)
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [True, False])
def test_files_of_itk(tmp_path, grid, dtype, ending, compressed):
    image = itk.to_image(Volume(VOXELS.astype(dtype), grid.crop((0, 0, 0), (6, 5, 4))))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), compressed)
    np.testing.assert_array_equal(assert_same(tmp_path / f"a{ending}").array, VOXELS)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (2, 4, 5, 6)])
@pytest.mark.parametrize("components", [1, 2, 3])
def test_flat_images_time_and_vectors_of_itk(tmp_path, shape, components):
    if len(shape) == 4 and components > 1:
        pytest.skip("more than one axis of channels")
    array = np.random.default_rng(0).integers(0, 200, (*shape, components), np.uint8)
    image = sitk.GetImageFromArray(array if components > 1 else array[..., 0], components > 1)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert_same(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    "lines",
    [
        "",
        *(f"space: {name}\n{OBLIQUE}" for name in (*nrrd.SPACES, *nrrd.SHORT) if name),
        "space dimension: 3\n" + OBLIQUE,
        "spacings: 1 2 3\n",
        "spacings: 1 2 3\naxis mins: 5 6 7\n",
        "spacings: 1 2 3\naxis mins: 5 6 7\ncenterings: node node node\n",
        "spacings: 1 2 3\naxismins: 5 6 7\ncenters: node node node\n",
        "space: LPS\n" + OBLIQUE.replace("space directions", "spacedirections"),
        "spacings:=1 2 3\nkinds:=vector domain domain\ntype:=float\nkey:=1\nkey:=1\n",
        "spacings: nan nan 3\nthicknesses: nan nan 2\n",
        "# a comment: x\ncontent: a: b\nkey:=one:=two\nSegment0_Name:=Léber\\nx\n",
        'kinds: space space space\nunits: "mm" "mm" "mm"\n',
    ],
)
def test_headers_that_itk_reads(tmp_path, lines):
    assert_same(made(tmp_path / "a.nrrd", RAW + lines))


@pytest.mark.parametrize(
    ("lines", "spacing_mm", "origin_mm", "is_spaced", "is_placed"),
    [
        ("", (1, 1, 1), (0, 0, 0), False, False),
        ("spacings: 1 2 nan\n", (1, 2, 1), (0, 0, 0), False, False),
        ("spacings: 1 2 3\n", (1, 2, 3), (0, 0, 0), True, False),
        ('spacings: 1 2 3\nunits: "cm" "" "\u00b5m"\n', (10, 2, 0.003), (0, 0, 0), True, False),
        ("axis mins: 0 0 4\naxis maxs: 6 10 16\n", (1, 2, 3), (-0.5, -1, 5.5), True, False),
        (
            "axis mins: 0 0 4\naxis maxs: 5 8 13\ncenterings: node node node\n",
            (1, 2, 3),
            (0, 0, 4),
            True,
            False,
        ),
        (
            "space: LPS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (1,2,3)\n"
            'space units: "cm" "cm" "Millimeters"\n',
            (10, 20, 3),
            (-10, -20, 3),
            True,
            True,
        ),
    ],
)
def test_units_of_length_and_what_is_not_stated(
    tmp_path, lines, spacing_mm, origin_mm, is_spaced, is_placed
):
    volume = nrrd.read(made(tmp_path / "a.nrrd", RAW + lines))
    np.testing.assert_allclose(volume.spacing_mm, spacing_mm)
    np.testing.assert_allclose(volume.grid.affine[:3, 3], origin_mm, atol=1e-12)
    assert volume.meta["spacing_known"] is is_spaced and volume.meta["place_known"] is is_placed
    assert nrrd.read_grid(tmp_path / "a.nrrd") == volume.grid
    if not is_spaced:
        stated = files.read(tmp_path / "a.nrrd", spacing_mm=(2, 3, 4))
        assert stated.spacing_mm == (2, 3, 4) and stated.meta["spacing_known"]
        assert files.read_grid(Source(stated.source, spacing_mm=(2, 3, 4))) == stated.grid


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gz", gzip.compress(BYTES)),
        ("gzip", gzip.compress(BYTES)),
        ("ascii", " ".join(map(str, VOXELS.ravel("F"))).encode()),
        ("raw\nbyte skip: -1", b"other bytes" + BYTES),
        ("raw\nline skip: 1", b"a line\n" + BYTES),
    ],
)
def test_encodings(tmp_path, encoding, data):
    volume = assert_same(made(tmp_path / "a.nrrd", f"{AXES}encoding: {encoding}\n", data))
    np.testing.assert_array_equal(volume.array, VOXELS)


def test_big_endian_and_bzip2(tmp_path):
    swapped = RAW.replace("little", "big")
    assert_same(made(tmp_path / "a.nrrd", swapped, VOXELS.astype(">i2").tobytes(order="F")))
    path = made(tmp_path / "b.nrrd", AXES + "encoding: bzip2\n", bz2.compress(BYTES))
    np.testing.assert_array_equal(files.read(path).array, VOXELS)  # ITK has no bzip2


@pytest.mark.parametrize(
    "kinds",
    [
        "vector domain domain domain",
        "domain list domain domain",
        "domain domain domain list",
        "RGB-color space space space",
        "domain domain domain domain",
    ],
)
@pytest.mark.parametrize("placed", [True, False])
def test_four_axes(tmp_path, kinds, placed):
    words = kinds.split()
    at = next((n for n, kind in enumerate(words) if kind not in ("domain", "space")), 3)
    if placed and words == ["domain"] * 4:
        pytest.skip("ITK refuses it")
    sizes, directions = ["6", "5", "4"], ["(1,0,0)", "(0,2,0)", "(0,0,3)"]
    sizes.insert(at, "3")
    directions.insert(at, "none")
    lines = RAW.replace("3\nsizes: 6 5 4", f"4\nsizes: {' '.join(sizes)}") + f"kinds: {kinds}\n"
    if placed:
        lines += (
            f"space: left-posterior-superior\nspace directions: {' '.join(directions)}\n"
            "space origin: (1,2,3)\n"
        )
    volume = assert_same(made(tmp_path / "a.nrrd", lines, BYTES * 3))
    assert volume.array.shape == (3, 6, 5, 4)


@pytest.mark.parametrize(
    "line", ["data file: LIST\n{}", "data file: LIST 2\n{}", "datafile: s%d.raw 0 3 1\n"]
)
def test_detached_headers_name_several_files(tmp_path, line):
    for k in range(4):
        (tmp_path / f"s{k}.raw").write_bytes(VOXELS[..., k].tobytes(order="F"))
    names = "".join(f"s{k}.raw\n" for k in range(4))
    path = tmp_path / "a.nhdr"
    path.write_text("NRRD0004\n" + RAW + line.format(names))
    np.testing.assert_array_equal(assert_same(path).array, VOXELS)
    assert len(files.companions(path)) == 4
    (tmp_path / "s2.raw").unlink()
    with pytest.raises(FormatError, match=r"a\.nhdr.*no such file"):
        files.read(path)


@pytest.mark.parametrize(
    ("header", "data", "found"),
    [
        (RAW, BYTES[:-2], "truncated"),
        (RAW.replace("type: short\n", ""), BYTES, "no field 'type'"),
        (RAW.replace("6 5 4", "6 5 0"), b"", "sizes must be at least 1"),
        (RAW + "space: left-up-front\n" + OBLIQUE, BYTES, "unknown space 'left-up-front'"),
        (COMPLEX, BYTES * 2, "complex"),
        (RAW.replace("3\nsizes: 6", "5\nsizes: 2 2 6"), BYTES * 4, "5 axes"),
        (RAW + "content: a\ncontent: b\n", BYTES, "Duplicate header field"),
        (RAW + "spacings: 1 2\n", BYTES, "2 spacings for 3 axes"),
        (RAW + "key:=1\nkey:=2\n", BYTES, "'key' is stated twice"),
        (AXES + "encoding: gzip\nbyte skip: -1\n", gzip.compress(BYTES), "of packed voxels"),
        (RAW + 'spacings: 1 2 3\nunits: "mm" "s" "mm"\n', BYTES, "lengths in 's'; allowed: mm"),
    ],
)
def test_refusals_name_the_file(tmp_path, header, data, found):
    with pytest.raises(FormatError, match=found) as refused:
        files.read(made(tmp_path / "a.nrrd", header, data))
    assert "a.nrrd" in str(refused.value)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f4", "f8"])
@pytest.mark.parametrize("channels", [0, 2])
def test_itk_reads_what_is_written(tmp_path, grid, asymmetric, dtype, channels):
    array = np.stack([asymmetric, asymmetric[::-1]]) if channels else asymmetric
    files.write(Volume(array.astype(dtype), grid), tmp_path / "a.nrrd")
    volume = assert_same(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.array, array.astype(dtype))
    np.testing.assert_allclose(volume.grid.affine, grid.affine, atol=1e-12)


def test_equal_volumes_give_equal_files_and_names_survive(tmp_path, grid):
    labels = LabelSet.from_names({1: "foie", 4: "rein gauché"})
    mask = Volume(np.zeros(grid.shape, bool), grid, "label")
    for name in ("a", "b"):
        files.write(mask, tmp_path / f"{name}.seg.nrrd", labels=labels)
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()
    volume = assert_same(tmp_path / "a.seg.nrrd")
    assert volume.meta["segments"]["Segment1_Name"] == "rein gauché"


def test_real_segmentations(real_data):
    paths = sorted((real_data / "dicom_seg").rglob("*.nrrd"))
    assert len(paths) > 10
    for path in paths:
        assert_same(path)


@pytest.mark.parametrize(
    ("sizes", "lines", "shape"),
    [
        # Time is no axis in space, wherever it is.
        ("3 6 5 4", "kinds: time domain domain domain\n", (3, 6, 5, 4)),
        ("6 5 4", "kinds: domain domain time\n", (4, 6, 5, 1)),
        ("3 6 5 4", "space: LPS\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n", (3, 6, 5, 4)),
    ],
)
def test_axes_of_values_without_the_kinds_of_itk(tmp_path, sizes, lines, shape):
    header = RAW.replace("3\nsizes: 6 5 4", f"{len(sizes.split())}\nsizes: {sizes}") + lines
    volume = files.read(made(tmp_path / "a.nrrd", header, BYTES * (3 if sizes[0] == "3" else 1)))
    assert volume.array.shape == shape
    if shape[0] == 3:
        np.testing.assert_array_equal(volume.array.T.ravel()[: 6 * 5 * 4], VOXELS.T.ravel())


@pytest.mark.parametrize(
    "lines",
    [
        "kinds: vector domain domain\nspace directions: (1,0,0) (0,1,0) none\n",
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspacings: 2 2 2\n",
        OBLIQUE + 'units: "um" "um" "um"\n',
        OBLIQUE + "axis mins: 1 2 3\n",
        OBLIQUE + "space dimension: 2\n",
        OBLIQUE + 'space units: "cm" "cm"\n',
        OBLIQUE.replace("(1,2,3)", "(1,2)"),
        "kinds: domain domain 3-vector\n",
    ],
)
def test_headers_that_contradict_themselves(tmp_path, lines):
    path = made(tmp_path / "a.nrrd", RAW + "space: left-posterior-superior\n" + lines)
    with pytest.raises(FormatError, match=r"a\.nrrd.* contradict each other"):
        files.read(path)


def test_what_is_stated_and_not_applied_is_noted(tmp_path):
    path = made(tmp_path / "a.nrrd", RAW + "old min: 0\noldmax: 10\nsample units: HU\n")
    scale, unit = files.read(path).meta["notes"]
    assert "0.0 to 10.0" in scale and "'HU'" in unit


TENSORS = RAW.replace("3\nsizes: 6", "4\nsizes: 3 2") + (
    "space: LPS\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("kinds: vector space space space\n", []),
        ("kinds: list space space space\nmin: 0\nmax: 119\nthicknesses: nan 1 1 2\n", []),
        ("min: 0\nmax: 100\n", ["values from 0 to 100 (min, max); they are 0 to 119"]),
        ("spacing: 1 2 3\n", ["no fields of NRRD and are not read: spacing"]),
        ("kinds: HSV-color space space space\n", ["of the kind 'hsv-color'"]),
        ("measurement frame: (1,0,0) (0,1,0) (0,0,1)\n", []),
        ("measurement frame: (0,1,0) (1,0,0) (0,0,1)\n", ["axes of their own (measurement frame)"]),
        ("modality:=DWMRI\nDWMRI_b-value:=1000\n", ["its channels are diffusion-weighted"]),
    ],
)
def test_what_is_stated_of_values_and_not_read_is_noted(tmp_path, lines, found):
    path = made(tmp_path / "a.nrrd", TENSORS + lines, VOXELS.tobytes(order="F"))
    notes = files.read(path).meta.get("notes", [])
    assert len(notes) == len(found) and all(a in b for a, b in zip(found, notes, strict=True))


@pytest.mark.parametrize("name", ["", *(one for one in (*nrrd.SPACES, *nrrd.SHORT) if one)])
def test_a_place_without_directions_of_the_body_is_noted(tmp_path, name):
    space = f"space: {name}\n" if name else "space dimension: 3\n"
    notes = files.read(made(tmp_path / "a.nrrd", RAW + space + OBLIQUE)).meta.get("notes", [])
    expected = {"": "names no space", "scanner-xyz": "'scanner-xyz'"}
    expected |= {f"3d-{one}-handed": f"'3d-{one}-handed'" for one in ("left", "right")}
    assert len(notes) == (name in expected) and all(expected[name] in note for note in notes)
    # Without a place there is nothing to read in another way.
    assert not files.read(made(tmp_path / "b.nrrd", RAW + "spacings: 1 2 3\n")).meta.get("notes")


def test_a_place_needs_an_origin(tmp_path):
    path = made(tmp_path / "a.nrrd", RAW + "space: LPS\n" + OBLIQUE.splitlines()[0] + "\n")
    assert files.read(path).meta["place_known"] is False


def test_segments_of_early_slicer_have_neither_value_nor_layer(tmp_path):
    lines = TENSORS.replace("sizes: 3 2 5 4", "sizes: 2 3 5 4") + "kinds: list space space space\n"
    pairs = "Segment0_ID:=a\nSegment0_Name:=liver\nSegment1_ID:=b\nSegment1_Name:=spleen\n"
    layers = np.zeros((2, 3, 5, 4), np.int16, order="F")
    layers[0, 0], layers[1, 1:] = 1, 1
    path = made(tmp_path / "a.seg.nrrd", lines + pairs, layers.tobytes(order="F"))
    volume = read_label_file(path)
    assert volume.meta["names"] == {1: "liver", 2: "spleen"}
    np.testing.assert_array_equal(volume.array, layers[0] + 2 * layers[1])

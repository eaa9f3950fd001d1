"""The phantom cohort: all forms hold the same voxels at the same places, and its traps are really
there.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.phantom.cohort import (
    FORMS,
    GREY_VALUES,
    LABELS,
    Form,
    make_cohort,
    make_scan,
)
from delineate.cohorts.reading import read_image, read_label
from delineate.core.errors import OutputError, UsageError
from delineate.core.labels import LabelMapping, Range
from delineate.core.manifest import Source
from delineate.core.volume import Volume
from delineate.formats import files

PATIENTS, SIZE = 8, (64, 16)  # eight: every unusual storage occurs
NAMES = [f"phantom_{n:03d}" for n in range(1, PATIENTS + 1)]
CHAOS = LabelMapping(
    ranges=(Range(55, 70, 1), Range(110, 135, 2), Range(175, 200, 3), Range(240, 255, 4))
)
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4


@pytest.fixture(scope="module")
def dicom_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("dicom"), patients=PATIENTS, size=SIZE)


@pytest.fixture(scope="module")
def nifti_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("nifti"), patients=PATIENTS, size=SIZE, form="nifti")


def from_dicom(cohort: Path, name: str) -> tuple[Volume, Volume]:
    folder = cohort / name
    image = files.read(folder / "DICOM_anon")
    ground = files.read(Source(path=str(folder / "Ground"), like=str(folder / "DICOM_anon")))
    return image.reorient("RAS"), ground.with_array(
        CHAOS.apply(ground.array, LABELS), unit="label"
    ).reorient("RAS")


def from_nifti(cohort: Path, name: str) -> tuple[Volume, Volume]:
    return files.read(cohort / "images" / f"{name}.nii.gz").reorient("RAS"), files.read(
        cohort / "labels" / f"{name}.nii.gz"
    ).reorient("RAS")


def centroid_mm(label: Volume, value: int) -> np.ndarray:
    return label.grid.to_mm(np.argwhere(label.array == value).mean(axis=0))


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_hold_the_same_voxels_at_the_same_places(
    dicom_cohort: Path, nifti_cohort: Path, name: str
) -> None:
    image, label = from_dicom(dicom_cohort, name)
    other_image, other_label = from_nifti(nifti_cohort, name)
    assert image.grid.matches(other_image.grid, 0.01)
    assert label.grid.matches(other_label.grid, 0.01)
    assert image.unit == "HU"
    np.testing.assert_array_equal(image.array, other_image.array)
    np.testing.assert_array_equal(label.array, other_label.array)


@pytest.mark.parametrize("name", NAMES)
def test_organs_stand_where_they_belong(dicom_cohort: Path, name: str) -> None:
    image, label = from_dicom(dicom_cohort, name)
    right, left, liver, spleen = (
        centroid_mm(label, v) for v in (RIGHT_KIDNEY, LEFT_KIDNEY, LIVER, SPLEEN)
    )
    assert right[0] > left[0] + 60, "x grows to the patient's right"
    assert liver[0] > spleen[0] + 60
    assert liver[1] > right[1], "kidneys lie behind the liver's middle"
    assert liver[2] > right[2], "and below it"
    for value in (LIVER, SPLEEN):
        assert 20 < np.median(image.array[label.array == value]) < 170
    kidneys = [float(image.array[label.array == v].mean()) for v in (RIGHT_KIDNEY, LEFT_KIDNEY)]
    assert all(15 < hu < 240 for hu in kidneys)
    assert abs(kidneys[0] - kidneys[1]) < 45, "the sides look alike"


def test_patients_differ_and_volumes_are_plausible() -> None:
    volumes, spacings = [], set()
    for index in range(10):
        scan = make_scan(index)
        volumes.append(
            [float((scan.label.array == v).sum()) * scan.label.grid.voxel_ml for v in LABELS.values]
        )
        spacings.add(scan.image.grid.spacing_mm)
        i, _, k = scan.image.grid.shape
        assert 112 <= i <= 144
        assert 30 <= k <= 46
        assert 2 <= scan.image.grid.spacing_mm[0] <= 3
        assert scan.thickness_mm != pytest.approx(scan.image.grid.spacing_mm[2], abs=0.3)
    low, high = np.min(volumes, axis=0), np.max(volumes, axis=0)
    assert len(spacings) == 10
    assert np.all(low > (350, 25, 25, 25))
    assert np.all(high < (2000, 260, 260, 420))
    assert np.all(high > 1.3 * low)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_organs_wrongly_flipped_score_badly(nifti_cohort: Path, axis: int) -> None:
    for name in NAMES:
        label = from_nifti(nifti_cohort, name)[1].array
        flipped = np.flip(label, axis)
        dice = [
            2 * ((label == v) & (flipped == v)).sum() / ((label == v).sum() + (flipped == v).sum())
            for v in LABELS.values
        ]
        assert np.mean(dice) < 0.6
        if axis == 0:
            assert max(dice[1:]) < 0.2, "no kidney and no spleen meets itself on the other side"


def test_the_seed_decides_and_the_number_of_patients_does_not(tmp_path: Path) -> None:
    a = make_cohort(tmp_path / "a", patients=2, seed=5, size=(32, 6))
    b = make_cohort(tmp_path / "b", patients=3, seed=5, size=(32, 6))
    c = make_cohort(tmp_path / "c", patients=1, seed=6, size=(32, 6))
    mine = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert mine
    assert all((a / p).read_bytes() == (b / p).read_bytes() for p in mine)
    assert not np.array_equal(
        from_dicom(a, "phantom_001")[0].array, from_dicom(c, "phantom_001")[0].array
    )


def test_the_traps_are_there(dicom_cohort: Path) -> None:
    heads = {}
    for name in NAMES:
        found = [pydicom.dcmread(p) for p in sorted((dicom_cohort / name / "DICOM_anon").iterdir())]
        heads[name] = found
        z = [float(d.ImagePositionPatient[2]) for d in found]
        assert sorted(z) != z, "file names in slice order"
        assert sorted(z, reverse=True) != z, "file names in slice order"
        gap = np.diff(sorted(z))[0]
        assert abs(float(found[0].SliceThickness) - gap) > 0.3
        assert {str(d.PatientID) for d in found} == {name}
    by_number = {
        name: [float(d.ImagePositionPatient[2]) for d in sorted(ds, key=lambda d: d.InstanceNumber)]
        for name, ds in heads.items()
    }
    ordered = {name: z in (sorted(z), sorted(z, reverse=True)) for name, z in by_number.items()}
    assert [name for name, fine in ordered.items() if not fine] == ["phantom_002"]
    orientations = {
        name: tuple(float(v) for v in ds[0].ImageOrientationPatient) for name, ds in heads.items()
    }
    assert orientations["phantom_001"] == (1, 0, 0, 0, 1, 0)
    assert orientations["phantom_006"] == (1, 0, 0, 0, -1, 0)
    assert 0.99 < orientations["phantom_004"][0] < 0.998
    assert {float(ds[0].RescaleSlope) for ds in heads.values()} == {1.0, 0.5}
    assert {int(ds[0].PixelRepresentation) for ds in heads.values()} == {0, 1}


def test_masks_have_the_grey_values_of_chaos(dicom_cohort: Path) -> None:
    from PIL import Image

    folder = dicom_cohort / "phantom_001"
    masks = {p.stem: np.array(Image.open(p)) for p in (folder / "Ground").iterdir()}
    assert masks.keys() == {p.stem for p in (folder / "DICOM_anon").iterdir()}
    assert set(np.unique(np.stack(list(masks.values()))).tolist()) == {0, *GREY_VALUES.values()}


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nrrd"):
        make_cohort(tmp_path / "a", form="nrrd")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least one"):
        make_cohort(tmp_path / "a", patients=0)
    with pytest.raises(UsageError, match="matrix"):
        make_cohort(tmp_path / "a", size=(8, 4))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="not empty"):
        make_cohort(tmp_path / "full")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"


def test_nifti_names_its_labels_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, float, float, str]] = []
    folder = make_cohort(
        tmp_path / "n",
        patients=2,
        size=(32, 6),
        form="nifti",
        progress=lambda *words: told.append(words),
    )
    assert told == [("phantom", 1, 2, "phantom_001"), ("phantom", 2, 2, "phantom_002")]
    assert (folder / "labels.csv").read_text().splitlines() == [
        "value,name",
        "1,liver",
        "2,right kidney",
        "3,left kidney",
        "4,spleen",
    ]
    assert LABELS.pairs == [(LEFT_KIDNEY, RIGHT_KIDNEY)]


def test_the_validator_finds_no_error(dicom_cohort: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    for name in NAMES:
        file = next((dicom_cohort / name / "DICOM_anon").iterdir())
        told = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        assert [
            line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")
        ] == []


# ---- the trees of known collections ----

# Five patients: one is turned, one numbered misleadingly.
FEW, MANY = (
    5,
    ("chaos-mr", "ircadb", "volumes", "nifti"),
)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        form: make_cohort(
            tmp_path_factory.mktemp(form) / "cohort", patients=FEW, size=SIZE, form=form
        )
        for form in MANY
    }  # type: ignore[arg-type]


def found_in(folder: Path, layout: str | None = None) -> dict[str, tuple[Volume, Volume]]:
    """phantom_00N -> image and truth of the cohort as ``check`` and ``train`` see it, in RAS, with
    the values of ``LABELS``.
    """
    found = discover(folder, layout=layout)
    assert [f.message for f in found.findings if f.severity != "note"] == []
    out = {}
    for case in found.manifest:
        image = read_image(case, found.manifest)
        label = read_label(case, found.manifest, image.grid)
        table = np.zeros(256, np.uint8)
        for own in found.manifest.labels:
            table[own.value] = LABELS.named(own.name).value
        name = (
            case.id
            if case.id.startswith("phantom")
            else f"phantom_{int(case.id.rsplit('.', 1)[1]):03d}"
        )
        out[name] = image.reorient("RAS"), label.with_array(table[label.array]).reorient("RAS")
    return out


@pytest.mark.parametrize("form", ["ircadb", "volumes", "chaos-mr"])
def test_every_tree_is_recognised_and_holds_the_same_labels(
    trees: dict[str, Path], form: str
) -> None:
    plain, other = found_in(trees["nifti"]), found_in(trees[form])
    assert sorted(other) == sorted(plain) == NAMES[:FEW]
    for name, (image, label) in other.items():
        assert label.grid.matches(plain[name][1].grid, 0.01), name
        np.testing.assert_array_equal(label.array, plain[name][1].array)
        if form != "chaos-mr":
            np.testing.assert_array_equal(image.array, plain[name][0].array)


def test_volumes_keep_the_last_quarter_for_testing(trees: dict[str, Path], tmp_path: Path) -> None:
    manifest = discover(trees["volumes"]).manifest
    assert manifest.layout == "parallel-folders"
    assert {c.id: c.split for c in manifest} == {**dict.fromkeys(NAMES[:4]), NAMES[4]: "test"}
    assert manifest.labels.names == LABELS.names
    eight = make_cohort(tmp_path / "eight", patients=8, size=(16, 4), form="volumes")
    assert [p.name.split(".")[0] for p in sorted((eight / "TestVolumes").iterdir())] == NAMES[6:]
    one = make_cohort(tmp_path / "one", patients=1, size=(16, 4), form="volumes")
    assert not (one / "TestVolumes").exists()


def test_chaos_mr_is_taken_whole_or_in_phase_alone(trees: dict[str, Path]) -> None:
    both = discover(trees["chaos-mr"]).manifest
    assert (both.layout, both.modality, both.channels) == (
        "chaos-mr",
        "MR",
        ("T1DUAL InPhase", "T1DUAL OutPhase"),
    )
    alone = discover(trees["chaos-mr"], layout="chaos-mr-inphase").manifest
    assert (alone.layout, alone.channels, alone.labels.names) == (
        "chaos-mr-inphase",
        ("T1DUAL InPhase",),
        LABELS.names,
    )
    for case, one in zip(both, alone, strict=True):
        pair = read_image(case, both)
        assert pair.unit == "a.u."
        np.testing.assert_array_equal(pair.array[0], read_image(one, alone).array[0])


def test_mr_looks_like_t1_and_its_scale_means_nothing(trees: dict[str, Path]) -> None:
    scales = []
    for _, (image, label) in sorted(found_in(trees["chaos-mr"]).items()):
        inside, outside = image.array.astype(float)
        assert inside.min() >= 0 and 100 < inside.max() <= 4095
        level = {
            organ.name: float(np.median(inside[label.array == organ.value]))
            for organ in LABELS
            if (label.array == organ.value).sum() > 50
        }
        assert level["liver"] > 1.15 * level["spleen"], "T1 without contrast agent"
        scales.append(level["liver"])
        air = inside[label.array == 0] < 0.1 * level["liver"]
        assert air.mean() > 0.1
        edge = (label.array == 1) & (
            (np.roll(label.array, 1, 1) == 0) | (np.roll(label.array, -1, 1) == 0)
        )
        middle = (label.array == 1) & ~edge
        dimmed = [
            float(np.mean(outside[where]) / np.mean(inside[where])) for where in (edge, middle)
        ]
        assert dimmed[0] < dimmed[1] - 0.03, "water and fat cancel at the organ's rim"
        assert 0.6 < dimmed[1] < 1.02
    assert max(scales) > 1.8 * min(scales), "16-bit values that nobody normalised"


def test_chaos_mr_files_are_named_as_the_challenge_names_them(trees: dict[str, Path]) -> None:
    base = trees["chaos-mr"] / NAMES[0] / "T1DUAL"
    stems = {p.stem for p in (base / "Ground").iterdir()}
    assert stems == {p.stem for p in (base / "DICOM_anon" / "InPhase").iterdir()}
    out = {p.stem for p in (base / "DICOM_anon" / "OutPhase").iterdir()}
    assert {int(s[-5:]) for s in out} == {int(s[-5:]) - 1 for s in stems}
    head = pydicom.dcmread(next((base / "DICOM_anon" / "OutPhase").iterdir()))
    assert (head.Modality, head.SOPClassUID.name, head.BitsStored) == ("MR", "MR Image Storage", 12)
    assert "RescaleSlope" not in head and "KVP" not in head


def test_ircadb_holds_a_mask_series_an_organ(trees: dict[str, Path]) -> None:
    manifest = discover(trees["ircadb"]).manifest
    assert (manifest.layout, manifest.modality) == ("3d-ircadb", "CT")
    assert manifest.patients == [f"3Dircadb1.{n}" for n in range(1, FEW + 1)]
    assert sorted(manifest.labels.names) == sorted(LABELS.names)
    folder = trees["ircadb"] / "3Dircadb1.1"
    assert {p.name for p in (folder / "MASKS_DICOM").iterdir()} == {
        "liver",
        "rightkidney",
        "leftkidney",
        "spleen",
    }
    values = np.unique(
        np.stack(
            [pydicom.dcmread(p).pixel_array for p in (folder / "MASKS_DICOM" / "liver").iterdir()]
        )
    )
    assert values.tolist() == [0, 255]


def test_masks_can_hold_the_liver_alone(trees: dict[str, Path], tmp_path: Path) -> None:
    forms: tuple[Form, ...] = ("volumes", "chaos-mr", "ircadb")
    for form in forms:
        folder = make_cohort(tmp_path / form, patients=2, size=SIZE, form=form, organs=["liver"])
        # Its grey ranges are fixed.
        assert discover(folder).manifest.labels.names == (
            LABELS.names if form == "chaos-mr" else ["liver"]
        )
        for name, (image, label) in found_in(folder).items():
            whole = found_in(trees[form])[name]
            np.testing.assert_array_equal(label.array, np.where(whole[1].array == LIVER, LIVER, 0))
            np.testing.assert_array_equal(image.array, whole[0].array)
    assert (tmp_path / "volumes" / "labels.csv").read_text() == "value,name\n1,liver\n"
    with pytest.raises(UsageError, match="pancreas"):
        make_cohort(tmp_path / "no", organs=["pancreas"])


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_made_again_byte_by_byte(tmp_path: Path, form: str) -> None:
    made = [
        make_cohort(tmp_path / n, patients=2, size=(32, 6), seed=seed, form=form)
        for n, seed in (("a", 5), ("b", 5), ("c", 6))
    ]  # type: ignore[arg-type]
    assert digest(made[0]) == digest(made[1]) != digest(made[2])


def test_the_validator_finds_no_error_in_mr_and_masks(trees: dict[str, Path]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    for place in (
        trees["chaos-mr"] / NAMES[0] / "T1DUAL/DICOM_anon/InPhase",
        trees["ircadb"] / "3Dircadb1.1/MASKS_DICOM/liver",
    ):
        told = subprocess.run(
            ["dciodvfy", str(next(place.iterdir()))], capture_output=True, text=True, check=False
        )
        assert [
            line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")
        ] == []

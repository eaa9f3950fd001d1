"""Copies of one scan under two ids, found by content."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from delineate.cohorts.checks.copies import details_of, find_copies
from delineate.commands.check import check
from delineate.commands.options import CheckOptions
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import files

GRID = Grid((60, 56, 48), np.diag([1.0, 1.0, 1.2, 1.0]))


def head(seed: int) -> Volume:
    """A smooth body, the same for all, with the texture of one person."""
    rng = np.random.default_rng(seed)
    body = ndimage.gaussian_filter(np.random.default_rng(99).normal(size=GRID.shape), 6) * 900
    texture = ndimage.gaussian_filter(rng.normal(size=GRID.shape), 1.2) * 120
    return Volume((200 + body + texture).astype(np.float32), GRID)


def cropped(scan: Volume) -> Volume:
    start, stop = (8, 5, 4), (54, 52, 44)
    array = scan.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    return Volume(array, scan.grid.crop(start, stop))


def resampled(scan: Volume) -> Volume:
    grid = scan.grid.respace((1.4, 1.2, 1.3))
    matrix = np.linalg.inv(scan.affine) @ grid.affine
    moved = ndimage.affine_transform(scan.array, matrix[:3, :3], matrix[:3, 3], grid.shape, order=3)
    return Volume(moved.astype(np.float32), grid)


def registered(scan: Volume) -> Volume:
    angle = np.deg2rad(4)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    turn = np.vstack([turn, [0, 0, 1]])
    centre = (np.array(scan.grid.shape) - 1) / 2
    moved = ndimage.affine_transform(scan.array, turn, centre - turn @ centre + 1.3, order=3)
    noise = np.random.default_rng(5).normal(0, 2, moved.shape)
    return Volume((moved + noise).astype(np.float32), scan.grid)


COPIES = {
    "other intensities": lambda scan: scan.with_array((scan.array * 3 + 17).astype(np.int16)),
    "cropped": cropped,
    "resampled": resampled,
    "turned by": registered,
    "mirrored": lambda scan: scan.with_array(scan.array[::-1].copy()),
}


@pytest.fixture(scope="module")
def people() -> list[Volume]:
    return [head(seed) for seed in range(4)]


def test_people_with_similar_bodies_are_no_copies(people):
    found = find_copies([details_of(one) for one in people], list("abcd"))
    assert found == []


@pytest.mark.parametrize("kind", list(COPIES))
def test_check_reports_the_copy_under_another_id(tmp_path, people, kind):
    scans = [*people, COPIES[kind](people[2])]
    for n, scan in enumerate(scans):
        files.write(scan, tmp_path / f"cohort/images/p{n}.nii.gz")
        mask = np.zeros(scan.grid.shape, np.uint8)
        mask[10:20, 10:25, 10:20] = 1
        files.write(Volume(mask, scan.grid, "label"), tmp_path / f"cohort/labels/p{n}.nii.gz")
    fixed = tmp_path / "fixed"
    report = check(tmp_path / "cohort", options=CheckOptions(workers=1, fix=fixed))
    (found,) = [f for f in report.findings if f.kind == "patient" and f.severity == "warning"]
    assert (found.severity, found.case) == ("warning", "p4")
    assert found.data["patients"] == ["p2", "p4"] and kind in found.message
    assert "folds would leak" in found.message and "state one patient" in found.message
    # Repaired, both are one patient, and folds keep them together; no file is written again.
    assert {case.id: case.patient for case in report.usable}["p4"] == "p2"
    assert json.loads((fixed / "changes.json").read_text())["patients"] == {"p4": "p2"}
    assert not (fixed / "images").exists()


def test_one_patient_may_have_the_same_scan_twice(people):
    details = [details_of(people[0]), details_of(registered(people[0]))]
    assert find_copies(details, ["a", "a"]) == []
    (copy,) = find_copies(details, ["a", "b"])
    assert copy.agreeing >= 12 and copy.degrees == pytest.approx(4, abs=1)


def test_slices_and_scans_without_details(people):
    flat = Volume(people[0].array[:, :, 20:21], Grid.from_spacing((60, 56, 1), (1, 1, 1)))
    other = flat.with_array(flat.array * 2)
    (copy,) = find_copies([details_of(flat), details_of(other)], ["a", "b"])
    assert copy.mirrored is None and copy.degrees < 1
    nothing = Volume(np.zeros((30, 30, 30)), Grid.from_spacing((30, 30, 30), (1, 1, 1)))
    tiny = Volume(np.ones((3, 3, 3)), Grid.from_spacing((3, 3, 3), (1, 1, 1)))
    assert details_of(nothing) == details_of(tiny) == ()
    assert find_copies([(), details_of(flat)], ["a", "b"]) == []


def test_patients_on_two_sides_of_a_split_are_not_made_one(tmp_path):
    from delineate.cohorts.checks.repair import one_patient
    from delineate.core.labels import LabelSet
    from delineate.core.manifest import Case, Manifest, Source

    def case(name: str, split: str | None) -> Case:
        return Case(name, name, (Source(f"/{name}.nii"),), split=split)

    cases = (case("a", "train"), case("b", "test"), case("c", None), case("d", None))
    manifest = Manifest(cases, ("image",), LabelSet(()))
    merged, changed = one_patient(manifest, [["a", "b"], ["c", "d"], ["a", "d"]])
    assert changed == {"c": "a", "d": "a"}
    assert [one.patient for one in merged] == ["a", "b", "a", "a"]

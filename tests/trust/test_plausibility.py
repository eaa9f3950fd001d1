"""Flags of predictions: planted faults are flagged, scans like the training cases are not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.trust.plausibility import CaseMeasures, Ranges, flags, measure, ranges_of, sample

LABELS = LabelSet.from_names({1: "left kidney", 2: "right kidney", 3: "liver"})
SHAPE = (40, 32, 24)


def case(seed: int) -> tuple[Volume, Volume]:
    """A body with two kidneys and a liver on the right, on a grid whose first axis points to the
    left.
    """
    rng = np.random.default_rng(seed)
    spacing = np.array([3.0, 3.0, 4.0]) * rng.uniform(0.97, 1.03)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [spacing[0] * SHAPE[0] / 2, 5, -300]
    at = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    label = np.zeros(SHAPE, np.uint8)
    scale = rng.uniform(0.9, 1.1)
    for value, centre, radius in ((1, (28, 12, 8), 4), (2, (12, 12, 8), 4), (3, (11, 18, 15), 7)):
        moved = np.array(centre) + rng.uniform(-0.7, 0.7, 3)
        label[((at - moved[:, None, None, None]) ** 2).sum(0) < (scale * radius) ** 2] = value
    body = ((at[0] - 19.5) / 17) ** 2 + ((at[1] - 15.5) / 14) ** 2 < 1
    image = 100.0 * body + 60 * (label > 0) + rng.normal(0, 5, SHAPE)
    grid = Grid(SHAPE, affine)
    gain = rng.uniform(0.2, 5)  # intensities of MR have no unit
    return Volume((gain * image)[None].astype(np.float32), grid, "a.u."), Volume(
        label, grid, "label"
    )


def found(image: Volume, label: Volume, ranges: Ranges | None) -> set[str]:
    return {flag["kind"] for flag in flags(measure(sample(image), label, LABELS), ranges)}


@pytest.fixture(scope="module")
def ranges() -> Ranges:
    cases = [measure(sample(image), label, LABELS) for image, label in map(case, range(20))]
    known = ranges_of(cases)
    assert Ranges.from_json(json.loads(json.dumps(known.to_json()))).always == known.always
    return known


def mirrored(volume: Volume, axis: int = 0) -> Volume:
    return volume.with_array(np.flip(volume.array, volume.array.ndim - 3 + axis).copy())


def half(volume: Volume) -> Volume:
    grid = Grid((*SHAPE[:2], SHAPE[2] // 2), volume.grid.affine)
    return replace(volume, array=volume.array[..., : SHAPE[2] // 2].copy(), grid=grid)


def stretched(volume: Volume) -> Volume:
    affine = volume.grid.affine @ np.diag([1, 1, 2.0, 1])
    return replace(volume, grid=Grid(SHAPE, affine))


def test_scans_like_those_of_the_training_are_not_flagged(ranges):
    flagged = [n for n in range(100, 160) if found(*case(n), ranges)]
    assert len(flagged) <= 3


def test_planted_faults_are_flagged(ranges):
    image, label = case(99)
    assert not found(image, label, ranges)
    assert {"side", "position", "mirrored"} <= found(mirrored(image), mirrored(label), ranges)
    # The scan alone shows it, whatever the mask.
    for axis in range(3):
        assert "mirrored" in found(mirrored(image, axis), label, ranges)
    assert {"size", "volume"} & found(half(image), half(label), ranges)
    assert "spacing" in found(stretched(image), stretched(label), ranges)
    inverted = image.with_array(image.array.max() - image.array)
    assert found(inverted, label, ranges) == {"intensity"}  # not mirrored
    exchanged = label.with_array(np.array([0, 2, 1, 3], np.uint8)[label.array])
    assert "side" in found(image, exchanged, ranges)
    without = label.with_array(np.where(label.array == 2, 0, label.array))
    assert "missing" in found(image, without, ranges)
    pieces = label.array.copy()
    pieces[2:5, 25:28, 20:23] = 1
    assert "components" in found(image, label.with_array(pieces), ranges)
    swollen = label.with_array(np.where(image.array[0] > 0.5 * image.array.max(), 3, 0))
    assert "volume" in found(image, swollen.with_array(swollen.array.astype(np.uint8)), ranges)


def test_a_part_that_is_not_finite_is_flagged(ranges):
    image, label = case(101)
    torn = image.array.copy()
    torn[:, :, :10] = np.nan
    assert "not finite" in found(image.with_array(torn), label, ranges)
    # The background of masked scans may be NaN in every case.
    masked = [
        (i.with_array(np.where(i.array > 30, i.array, np.nan)), m) for i, m in map(case, range(12))
    ]
    known = ranges_of([measure(sample(i), m, LABELS) for i, m in masked[:-1]])
    assert "not finite" not in found(*masked[-1], known)


def components_of(*counts: int) -> CaseMeasures:
    """Of structures a, b, ... with so many components."""
    named = dict(zip("abc", counts, strict=False))
    return CaseMeasures({"components": sum(map(math.log, counts))}, tuple(named), {}, named)


def test_as_many_components_as_in_a_training_case_are_not_flagged():
    """The largest number of the training cases is rounded in the card."""
    cases = [components_of(1)] * 400 + [components_of(2)]
    ranges = Ranges.from_json(json.loads(json.dumps(ranges_of(cases).to_json())))
    assert flags(components_of(2), ranges) == []
    (flag,) = flags(components_of(3), ranges)
    assert flag["words"] == "more connected components than ever seen: a (3, in training at most 2)"
    assert flag["structures"] == ["a"]


def test_more_structures_in_several_components_than_ever_seen_are_named():
    """Each has as many as in some training case, but never in the same one."""
    ranges = ranges_of([components_of(2, 1), components_of(1, 2), *[components_of(1, 1)] * 400])
    (flag,) = flags(components_of(2, 2), ranges)
    assert flag["words"] == "more structures in several components than ever seen: a (2) and b (2)"
    assert flag["structures"] == ["a", "b"]


def test_flags_name_the_structures_that_they_are_about(ranges):
    image, label = case(97)
    exchanged = label.with_array(np.array([0, 2, 1, 3], np.uint8)[label.array])
    bright = image.array[0] > 0.5 * image.array.max()
    swollen = label.with_array(np.where(bright, 3, 0).astype(np.uint8))
    for changed, kind in ((exchanged, "side"), (swollen, "volume"), (swollen, "missing")):
        made = flags(measure(sample(image), changed, LABELS), ranges)
        named = {flag["kind"]: flag["structures"] for flag in made}[kind]
        assert named and set(named) <= set(LABELS.names), kind
        words = {flag["kind"]: flag["words"] for flag in made}[kind]
        assert all(name in words for name in named), (kind, words)
    blank = measure(sample(image.with_array(np.zeros_like(image.array))), label, LABELS)
    assert [f["structures"] for f in flags(blank, None) if f["kind"] == "constant"] == [[]]


def test_an_empty_scan_is_flagged_whatever_the_model(ranges):
    image, label = case(98)
    nothing = label.with_array(np.zeros_like(label.array))
    for known in (ranges, None):
        assert "constant" in found(image.with_array(np.zeros_like(image.array)), nothing, known)
        lost = image.with_array(np.full_like(image.array, np.nan))
        assert "not finite" in found(lost, nothing, known)
    assert Ranges.from_json(None) is None


def test_few_training_cases_give_no_range():
    few = ranges_of([measure(sample(i), label, LABELS) for i, label in map(case, range(3))])
    assert not few.ranges and not few.always
    image, label = case(97)
    assert not found(stretched(image), stretched(label), few)

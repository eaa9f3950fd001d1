"""What truths show across cases: drawn, shifted and copied masks, orders, channels, resolutions."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.cohorts.checks.across_cases import check_drawn_pattern, check_outliers
from delineate.cohorts.checks.across_truths import (
    check_channels,
    check_order,
    check_rare,
    check_same_masks,
    check_shifted,
)
from delineate.cohorts.checks.alignment import fit_of
from delineate.cohorts.checks.doctor import Examination
from delineate.cohorts.checks.modalities import profiles_of
from delineate.cohorts.checks.truths import centres_of, content_of, is_drawn, reversed_orders
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.evaluation.training_verdict import StructureFacts, TrainingFacts, judge
from delineate.extend.findings import Finding

LABELS = LabelSet.from_names({1: "head", 2: "tail"})


def truth(seed: int) -> np.ndarray:
    """Two boxes, one behind the other."""
    out = np.zeros((20, 30, 10), np.uint8)
    x, y = np.random.default_rng(seed).integers(2, 6, 2)
    out[x : x + 8, y : y + 8, 2:8] = 1
    out[x : x + 8, y + 10 : y + 18, 2:8] = 2
    return out


def scan(label: np.ndarray, seed: int) -> np.ndarray:
    return (100 * (label > 0) + np.random.default_rng(seed).normal(0, 9, label.shape))[None]


@pytest.mark.parametrize(
    ("made_of", "right"),
    [
        (lambda label: label[None] * 40.0, True),
        (lambda label: np.where(label > 0, 999.0, scan(label, 0)), True),
        (lambda label: np.concatenate([scan(label, 0), label[None]]), True),
        (lambda label: scan(label, 0), False),
        (lambda label: np.zeros((1, *label.shape)), False),
        (lambda label: (label[None] > 0) | (np.arange(10) == 9), False),
    ],
)
def test_an_image_that_repeats_its_mask(made_of, right):
    label = truth(1)
    assert is_drawn(made_of(label), label) is right
    assert not is_drawn(made_of(label), 0 * label)


def examinations(changed: dict[int, np.ndarray], count: int = 12) -> list[Examination]:
    grid = Grid((20, 30, 10), np.diag([-2.0, 1, 3, 1]))
    labels = [changed.get(n, truth(n)) for n in range(count)]
    return [
        Examination(f"c{n}", f"c{n}", labelled=True, centres=centres_of(label, grid))
        for n, label in enumerate(labels)
    ]


def test_centres_are_in_mm():
    grid = Grid((20, 30, 10), np.diag([-2.0, 1, 3, 1]))
    label = np.zeros((20, 30, 10), np.uint8)
    label[4:7, 10:13, 2:5] = 2
    assert centres_of(label, grid) == {2: pytest.approx((-10, 11, 9))}


def test_structures_in_the_opposite_order_are_named():
    exchanged = {n: np.array([0, 2, 1], np.uint8)[truth(n)] for n in (1, 4, 7)}
    assert not check_order(examinations({}), LABELS)
    (finding,) = check_order(examinations(exchanged), LABELS)
    assert finding.kind == "order" and finding.data["cases"] == ["c1", "c4", "c7"]
    assert "3 of 12 cases (c1, c4, c7)" in finding.message
    turned = {n: truth(n)[:, ::-1] for n in (2, 3)}
    assert check_order(examinations(turned), LABELS)[0].data["cases"] == ["c2", "c3"]
    # Left and right are judged by their sides, and few cases show no order.
    sided = LabelSet.from_names({1: "left kidney", 2: "right kidney"})
    assert not check_order(examinations(exchanged), sided)
    assert not check_order(examinations(exchanged, 7), LABELS)


def test_structures_without_an_order_are_not_compared():
    draws = np.random.default_rng(0)
    anywhere = {
        f"c{n}": {v: tuple(draws.normal(0, 30, 3).tolist()) for v in range(1, 6)} for n in range(20)
    }
    assert not reversed_orders(anywhere)


def test_the_verdict_names_both():
    drawn = [Finding(f"c{n}", "drawn", "warning", "") for n in range(3)]
    seen = [Examination(f.case, f.case, labelled=True, findings=(f,)) for f in drawn]
    (finding,) = check_drawn_pattern(seen)
    assert "3 of 3 cases" in finding.message and not check_drawn_pattern(seen[:1])
    good = StructureFacts("head", (0.9,) * 5, tuple("abcde"), 5, 5, 0.3)
    facts = {"structures": (good,), "scored": "test", "cases": 5}
    assert judge(TrainingFacts(**facts)).level == "good"
    assert judge(TrainingFacts(**facts, drawn=finding.message)).level == "not usable"
    verdict = judge(TrainingFacts(**facts, doubts=("head and tail are exchanged",)))
    assert verdict.level == "usable with care" and "exchanged" in verdict.words
    verdict = judge(TrainingFacts(**facts, copied="one mask", doubts=("one mask",)))
    assert verdict.level == "not usable" and verdict.words.count("one mask") == 1


def test_masks_off_their_edges_are_named_and_others_are_not():
    def case(n: int, shift: tuple[int, int, int], seen: bool) -> Examination:
        label = np.pad(truth(n), 7)
        image = scan(label, n) if seen else scan(0 * label, n)
        moved = np.roll(label, shift, (0, 1, 2))
        return Examination(f"c{n}", f"c{n}", labelled=True, fit=fit_of(image, moved))

    far = ((4, -4, 0), (0, 5, 3), (6, 5, 4), (-5, 0, 2))
    half = [case(n, far[n % 4] if n % 2 else (0, 0, 0), True) for n in range(8)]
    (finding,) = check_shifted(half)
    assert finding.data["cases"] == [f"c{n}" for n in range(1, 8, 2)]
    assert "4 of 8 cases (c1, c3" in finding.message and "c1" not in finding.data["unnamed"]
    assert not check_shifted([case(n, (0, 0, 0), True) for n in range(8)])
    # Without edges at the masks nothing is known.
    assert not check_shifted([case(n, (0, 0, 0), False) for n in range(8)])


def test_one_mask_of_several_patients():
    def case(n: int, mask: int, patient: int) -> Examination:
        one = content_of(np.pad(truth(mask), ((0, n), (0, 0), (0, 0))))
        return Examination(f"c{n}", f"p{patient}", sha256=str(n), labelled=True, mask=one)

    assert content_of(np.ones((9, 9, 9), np.uint8)) == content_of(np.zeros((9, 9, 9))) == ""
    same = [case(n, 5 if n in (2, 4) else 50 * n, n) for n in range(6)]
    (finding,) = check_same_masks(same)
    assert finding.data["cases"] == ["c2", "c4"] and "2 of 6 cases" in finding.message
    assert not check_same_masks([case(n, 5, 0) for n in range(3)])  # scans of one patient
    person = Finding("c4", "patient", "warning", "", {"patients": ["p2", "p4"]})
    assert not check_same_masks(same, [person])


def test_a_structure_of_one_case():
    seen = [
        Examination(f"c{n}", f"c{n}", labelled=True, voxels={1: 9} | ({2: 7} if n == 3 else {}))
        for n in range(9)
    ]
    (finding,) = check_rare(seen, LABELS)
    assert finding.message.startswith("tail is labelled in 1 of 9 cases (c3), 7 voxels")
    assert not check_rare(seen[:7], LABELS)


def test_exchanged_channels():
    def case(n: int, order: list[int]) -> Examination:
        label = truth(n)
        image = scan(label, n)[0]
        channels = np.stack([image, 300 - 2 * image, image**2])[order]
        return Examination(f"c{n}", f"c{n}", profiles=profiles_of(channels, label))

    names = ("T1", "T2", "FLAIR")
    order = {1: [1, 0, 2], 4: [1, 0, 2], 5: [0, 2, 1]}
    found = check_channels([case(n, order.get(n, [0, 1, 2])) for n in range(12)], names)
    assert {tuple(f.data["channels"]): f.data["cases"] for f in found} == {
        ("T1", "T2"): ["c1", "c4"],
        ("T2", "FLAIR"): ["c5"],
    }
    assert not check_channels([case(n, [0, 1, 2]) for n in range(12)], names)


@pytest.mark.parametrize(
    ("thickness", "odd"),
    [
        ([1, 1.02, 1, 1, 1, 4, 4, 4, 4.1, 4], ["c5", "c6", "c7", "c8", "c9"]),
        ([1, 1, 1, 1, 3, 3, 3, 5, 5, 5], ["c4", "c5", "c6", "c7", "c8", "c9"]),
        ([1, 1.2, 1.4, 1.6, 2, 2.4, 2.8, 3.2, 4], None),
        ([1] * 9, None),
    ],
)
def test_groups_of_resolutions(thickness, odd):
    grids = [Grid((9, 9, 9), np.diag([1, 1, mm, 1.0])) for mm in thickness]
    found = check_outliers([Examination(f"c{n}", f"c{n}", grid=g) for n, g in enumerate(grids)])
    spacing = [f for f in found if f.kind == "spacing"]
    assert [f.data["cases"] for f in spacing] == ([] if odd is None else [odd])

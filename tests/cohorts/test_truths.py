"""Images that show their own masks, and structures whose order differs between cases."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.cohorts.checks.across_cases import check_drawn_pattern, check_order
from delineate.cohorts.checks.doctor import Examination
from delineate.cohorts.checks.truths import centres_of, is_drawn, reversed_orders
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
    verdict = judge(TrainingFacts(**facts, orders=("head and tail are exchanged",)))
    assert verdict.level == "usable with care" and "exchanged" in verdict.words

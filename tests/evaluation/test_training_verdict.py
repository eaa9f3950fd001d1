"""The verdict on a training, on recorded facts of runs that are bad in different ways, and of good
ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from delineate.core.labels import LabelSet
from delineate.evaluation.baseline import mean_shape_dice, trivial_dice
from delineate.evaluation.training_verdict import (
    NetworkFacts,
    StructureFacts,
    TrainingFacts,
    Verdict,
    judge,
)


def structure(name: str, *dice: float, baseline: float = 0.3, **changes) -> StructureFacts:
    """A structure that every case contains; it is found if its Dice is not 0."""
    found = sum(d > 0 for d in dice)
    patients = tuple(f"p{n}" for n in range(len(dice)))
    facts = StructureFacts(name, dice, patients, len(dice), found, baseline)
    return replace(facts, **changes)


def network(**changes) -> NetworkFacts:
    """A network that was trained as planned."""
    curve = ((100, 0.5), (300, 0.8), (500, 0.88), (650, 0.9), (760, 0.9))
    return replace(
        NetworkFacts("fold_0", 760, 750, 600, 0.4, False, 0.93, 0.90, curve),
        **changes,
    )


LIVER = structure("liver", 0.95, 0.96, 0.94, 0.95, 0.96)
LEFT = structure("left kidney", 0.9, 0.92, 0.91, 0.88, 0.9)
RIGHT = structure("right kidney", 0.91, 0.9, 0.92, 0.9, 0.87)
PAIR = (LEFT.name, RIGHT.name)


def facts(**changes) -> TrainingFacts:
    """A good run of three organs."""
    good = TrainingFacts((network(),), (LIVER, LEFT, RIGHT), "test", 5, exchanged={PAIR: 0.0})
    return replace(good, **changes)


LESION = structure("lesion", 0.55, 0.7, 0.6, 0.5, 0.8, 0.62, baseline=0.02)
HIPPOCAMPUS = structure("hippocampus", *np.linspace(0.84, 0.92, 20), baseline=0.58)
MANY = tuple(replace(LIVER, name=f"region {n}") for n in range(139))
GOOD = {
    "organs": facts(),
    "a difficult lesion": facts(structures=(LESION,), exchanged={}),
    "much like a trivial mask, but better": facts(structures=(HIPPOCAMPUS,), exchanged={}),
    "five folds": facts(
        networks=tuple(network(name=f"fold_{n}") for n in range(5)), scored="cross-validation"
    ),
}
SHORT = network(steps=94, training_dice=0.5, validation_dice=0.4, curve=((94, 0.4),))
BAD = {
    "too few steps": (
        facts(networks=(SHORT,), structures=(structure("liver", 0.05, 0.04, 0.06),)),
        "not usable",
        "only 94 of 750 wanted steps",
    ),
    "too few steps, and yet a result": (
        facts(networks=(replace(SHORT, validation_dice=0.85, training_dice=0.8),)),
        "usable with care",
        "only 94 of 750 wanted steps",
    ),
    "one structure never found": (
        facts(structures=(LIVER, LEFT, structure(RIGHT.name, 0, 0, 0, 0, 0))),
        "not usable",
        "right kidney was never found in the test cases",
    ),
    "one of 140 structures never found": (
        facts(structures=(*MANY, structure("claustrum", 0, 0, 0, 0, 0)), exchanged={}),
        "usable with care",
        "claustrum was never found",
    ),
    "overfitted": (
        facts(
            networks=(network(training_dice=0.99, validation_dice=0.6),),
            structures=(structure("liver", 0.55, 0.6, 0.65, 0.6, 0.6),),
        ),
        "usable with care",
        "overfitted: Dice 0.990 on training cases, 0.600 on validation cases",
    ),
    "labels of other cases": (
        facts(structures=(structure("hippocampus", 0.55, 0.62, 0.58, 0.6, baseline=0.58),)),
        "not usable",
        "no better than a trivial mask: hippocampus (0.588, trivial 0.580)",
    ),
    "images without information": (
        facts(structures=(structure("liver", 0.3, 0.28, 0.31), structure("spleen", 0, 0, 0))),
        "not usable",
        "spleen was never found in the test cases",
    ),
    "patients mixed": (
        facts(leaks=("b has the same voxels as a",)),
        "usable with care",
        "not independent",
    ),
    "sides exchanged by the model": (
        facts(
            structures=(LIVER, structure(LEFT.name, 0.1, 0.1), structure(RIGHT.name, 0.1, 0.1)),
            exchanged={PAIR: 0.9},
        ),
        "not usable",
        "90 % of the voxels of left kidney and right kidney have the wrong side",
    ),
    "sides exchanged in one case": (
        facts(exchanged={PAIR: 0.12}),
        "usable with care",
        "12 % of the voxels",
    ),
    "sides exchanged in the labels": (
        facts(sides_in_labels="left and right seem exchanged in 7 of 8 cases"),
        "not usable",
        "left and right seem exchanged in 7 of 8 cases",
    ),
    "diverged": (
        facts(networks=(network(diverged=True),)),
        "not usable",
        "the loss of fold 0 was not finite",
    ),
    "a truth that could not be read": (
        facts(not_scored=("c7",), cases=2),
        "usable with care",
        "1 of 3 held-out cases could not be scored (c7)",
    ),
    "nothing scored": (
        facts(scored="", structures=(StructureFacts("liver"),), cases=0),
        "usable with care",
        "no held-out case was scored",
    ),
    "one patient": (
        facts(structures=(structure("liver", 0.9),), cases=1),
        "usable with care",
        "too few patients to tell liver (0.900, trivial 0.300)",
    ),
    "a structure that no case has": (
        facts(structures=(LIVER, LEFT, StructureFacts("cyst"))),
        "usable with care",
        "cyst was in none of the test cases",
    ),
    "a low Dice": (
        facts(structures=(structure("lesion", 0.3, 0.35, 0.4, 0.33, baseline=0.01),)),
        "usable with care",
        "low Dice: lesion (0.345)",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_runs_are_good(name):
    verdict = judge(GOOD[name])
    assert verdict.level == "good" and not verdict.reasons and not verdict.advice
    assert verdict.words.startswith("good: ") and "Dice" in verdict.words and verdict.is_usable


@pytest.mark.parametrize("name", BAD)
def test_bad_runs_are_named_with_their_reason_and_what_to_do(name):
    recorded, level, words = BAD[name]
    verdict = judge(recorded)
    assert verdict.level == level, verdict.words
    assert words in verdict.words, verdict.words
    assert verdict.reasons and verdict.advice
    assert verdict.is_usable == (level != "not usable")
    # The reason for the level comes first.
    assert verdict.reasons[0].level == level
    assert verdict == Verdict.from_json(verdict.to_json())


def test_the_advice_names_the_time_that_is_missing():
    verdict = judge(BAD["too few steps"][0])
    # (750 - 94) steps of 0.4 s are 262 s.
    assert "--extend 5m" in verdict.words and "--device cuda" not in verdict.words
    assert "--epochs" in judge(facts(networks=(SHORT,), has_budget=False)).words
    assert "--device cuda" in judge(facts(networks=(SHORT,), on_cpu=True)).words
    few = network(steps=48, wanted=48, curve=())
    assert "--extend" in judge(replace(BAD["labels of other cases"][0], networks=(few,))).words
    # A training that has converged needs other labels or cases, not more time.
    assert "--extend" not in judge(BAD["labels of other cases"][0]).words


def test_a_model_without_verdict_is_unknown_and_says_nothing():
    assert Verdict.from_json(None) == Verdict() == Verdict.from_json({})
    assert Verdict().words == "unknown" and not Verdict().warning and Verdict().is_usable
    unfinished = Verdict(summary="the training has not ended")
    assert Verdict.from_json(unfinished.to_json()) == unfinished
    assert unfinished.warning == "this model is unknown: the training has not ended"


# ---- baseline ----


def ball(shape: tuple[int, int, int], centre: float, radius: float) -> np.ndarray:
    """A ball around a point on the diagonal, both relative to the size of the volume."""
    at = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"))
    return (((at - centre) ** 2).sum(0) < radius**2).astype(np.uint8)


def test_the_mean_shape_finds_what_is_always_in_one_place():
    training = [ball((20 + n, 30, 25), 0.5, 0.3) for n in range(6)]
    found = mean_shape_dice(training, [ball((40, 22, 31), 0.5, 0.3)], 2)
    assert found[1] > 0.93
    # It misses what is elsewhere, and does not know what it never saw.
    assert mean_shape_dice(training, [ball((30, 30, 30), 0.2, 0.1)], 2)[1] < 0.1
    assert mean_shape_dice(training, [2 * ball((30, 30, 30), 0.5, 0.3)], 3) == {2: 0.0}


def test_structures_that_overlap_have_a_baseline_each():
    whole, core = ball((24, 24, 24), 0.5, 0.4), ball((24, 24, 24), 0.5, 0.2)
    codes = [whole + 2 * core] * 5
    ignored = codes[0].copy()
    ignored[0] = 4  # the number after the last code
    labels = LabelSet(LabelSet.from_names({1: "whole", 2: "core"}).labels, overlapping=True)
    found = trivial_dice(codes, [ignored], labels)
    assert found["core"] == pytest.approx(1) and found["whole"] > 0.95
    # The same masks, one by one.
    alone = trivial_dice([core] * 5, [core], LabelSet.from_names({1: "core"}))
    assert alone == {"core": pytest.approx(found["core"])}


def test_the_best_constant_is_a_mean_shape():
    # Scattered places: no share of the cases is better than the whole scan.
    rng = np.random.default_rng(0)
    labels = [(rng.random((16, 16, 1)) < 0.7).astype(int) for _ in range(12)]
    found = mean_shape_dice(labels[:8], labels[8:], 2)
    assert found[1] == pytest.approx(2 * 0.7 / 1.7, abs=0.05)


def test_a_verdict_without_ids_of_cases():
    """Ids may be names of patients, and a model is given away."""
    verdict = judge(
        facts(leaks=("Doe^Jane has the same voxels as b",), not_scored=("Roe",), cases=2)
    )
    assert "not independent: Doe^Jane has" in verdict.words and "(Roe)" in verdict.words
    given = verdict.unnamed
    assert "Doe" not in str(given.to_json()) and "Roe" not in str(given.to_json())
    assert (given.level, given.advice) == (verdict.level, verdict.advice)
    assert "are not independent; 1 of 3 held-out cases could not be scored" in given.words


def test_equal_doubts_are_one():
    words = judge(facts(doubts=("3 of 8 cases share one mask",) * 2)).words
    assert words.count("3 of 8") == 1

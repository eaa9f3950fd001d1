"""Lesions against components grown voxel by voxel and matchings tried one by one, and against cases
counted by hand.
"""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some

from delineate.core.errors import GeometryError, UsageError
from delineate.metrics.lesions import lesions

SPACING = (0.8, 1.3, 4.0)
REACH = {26: 3, 18: 2, 6: 1}  # how many indices may differ between neighbours


def grown(mask, connectivity):
    """Sets of voxels that hang together, by asking each of its neighbours."""
    left, out = {tuple(v) for v in np.argwhere(mask).tolist()}, []
    steps = [
        s
        for s in itertools.product((-1, 0, 1), repeat=mask.ndim)
        if 0 < sum(map(abs, s)) <= REACH[connectivity]
    ]
    while left:
        waiting, piece = [left.pop()], set()
        while waiting:
            here = waiting.pop()
            piece.add(here)
            for step in steps:
                there = tuple(a + b for a, b in zip(here, step, strict=True))
                if there in left:
                    left.remove(there)
                    waiting.append(there)
        out.append(piece)
    return out


def best_matching(ts, ps, threshold):
    """(pairs, sum of IoU) of the best of all one-to-one matchings, by trying all of them."""
    iou = [[len(t & p) / len(t | p) for p in ps] for t in ts]

    def best(t, free):
        if t == len(ts):
            return (0, 0.0)
        ways = [best(t + 1, free)]
        for p in free:
            if iou[t][p] >= threshold:
                pairs, total = best(t + 1, free - {p})
                ways.append((pairs + 1, total + iou[t][p]))
        return max(ways)

    return best(0, frozenset(range(len(ps))))


@settings(max_examples=60, deadline=None)
@given(
    masks=some.arrays(
        bool,
        st.sampled_from([(2, 4, 4, 2), (2, 5, 5), (2, 3, 6, 1)]),
        elements=st.sampled_from([False, False, True]),
    ),
    connectivity=st.sampled_from([26, 18, 6]),
    threshold=st.sampled_from([0.05, 0.2, 0.5]),
)
def test_every_way_to_match_is_what_the_definition_says(masks, connectivity, threshold):
    p, t = masks
    ps, ts = grown(p, connectivity), grown(t, connectivity)
    spacing = SPACING[: p.ndim]
    found = lesions(p, t, spacing, "overlap", connectivity=connectivity)
    everywhere_p, everywhere_t = set().union(*ps), set().union(*ts)
    assert (
        found.true_positives == sum(bool(one & everywhere_p) for one in ts)
        and found.misses == len(ts) - found.true_positives
    )
    assert found.false_alarms == sum(not one & everywhere_t for one in ps) and len(
        found.prediction.ml
    ) == len(ps)
    covered = lesions(p, t, spacing, "overlap", threshold, connectivity=connectivity)
    assert covered.true_positives == sum(
        bool(one & everywhere_p) and len(one & everywhere_p) / len(one) >= threshold for one in ts
    )
    pairs, total = best_matching(ts, ps, threshold)
    best = lesions(p, t, spacing, "optimal", threshold, connectivity=connectivity)
    assert (
        best.true_positives == pairs
        and best.truth.iou.sum() == pytest.approx(total)
        and best.prediction.iou.sum() == pytest.approx(total)
    )
    assert best.misses == len(ts) - pairs and best.false_alarms == len(ps) - pairs
    greedy = lesions(p, t, spacing, "greedy", threshold, connectivity=connectivity)
    # A maximal matching has at least half of the largest one's pairs.
    assert 0 <= pairs - greedy.true_positives <= pairs / 2
    for one in (best, greedy):
        partners = one.truth.partner[one.truth.matched]
        assert len(set(partners.tolist())) == len(partners)
        np.testing.assert_array_equal(
            one.prediction.partner[partners], np.flatnonzero(one.truth.matched)
        )


def row(*runs, length=40):
    """A line of voxels (1, length, 1) with the runs [start, end)."""
    out = np.zeros((1, length, 1), np.uint8)
    for start, end in runs:
        out[0, start:end] = 7
    return out


def test_counted_by_hand():
    """Three lesions of 4, 6 and 2 voxels; predicted are half of the first, none of the others, and
    3 + 5 voxels of nothing.
    """
    found = lesions(
        row((2, 4), (20, 23), (30, 35)), row((2, 6), (10, 16), (38, 40)), (2.0, 5.0, 10.0)
    )
    assert (found.true_positives, found.misses, found.false_alarms) == (1, 2, 2)
    assert (
        found.sensitivity == pytest.approx(1 / 3)
        and found.precision == pytest.approx(1 / 3)
        and found.f1 == pytest.approx(1 / 3)
    )
    np.testing.assert_allclose(found.truth.ml, [0.4, 0.6, 0.2])
    np.testing.assert_allclose(found.truth.covered, [0.5, 0, 0])
    np.testing.assert_allclose(found.prediction.covered, [1, 0, 0])
    assert found.truth.partner.tolist() == [0, -1, -1] and found.truth.iou.tolist() == [0.5, 0, 0]
    assert found.false_alarms_ml == pytest.approx(0.8) and found.misses_ml == pytest.approx(0.8)
    np.testing.assert_allclose(found.truth.centre_voxel, [[0, 3.5, 0], [0, 12.5, 0], [0, 38.5, 0]])
    rows = found.rows()
    assert (
        [r["of"] for r in rows] == ["truth"] * 3 + ["prediction"] * 3
        and rows[0]["partner"] == 0
        and rows[1]["partner"] is None
    )
    assert rows[4] == {
        "of": "prediction",
        "lesion": 1,
        "volume_ml": pytest.approx(0.3),
        "covered": 0,
        "partner": None,
        "iou": 0,
        "counted": True,
        "centre_voxel": (0, 21, 0),
    }


def test_one_prediction_over_two_lesions_and_two_over_one():
    two, one = row((2, 6), (8, 12)), row((2, 12))
    merged, split = lesions(one, two, (1, 1, 1)), lesions(two, one, (1, 1, 1))
    assert (merged.true_positives, merged.misses, merged.false_alarms, merged.f1) == (2, 0, 0, 1)
    assert (split.true_positives, split.misses, split.false_alarms, split.f1) == (1, 0, 0, 1)
    assert math.isnan(merged.segmentation_quality) and math.isnan(merged.panoptic_quality)
    for match in ("optimal", "greedy"):
        merged, split = (
            lesions(one, two, (1, 1, 1), match, 0.3),
            lesions(two, one, (1, 1, 1), match, 0.3),
        )
        assert (merged.true_positives, merged.misses, merged.false_alarms) == (
            1,
            1,
            0,
        ) and merged.f1 == pytest.approx(2 / 3)
        assert (split.true_positives, split.misses, split.false_alarms) == (
            1,
            0,
            1,
        ) and split.segmentation_quality == pytest.approx(0.4)
        assert split.panoptic_quality == pytest.approx(0.4 * 2 / 3)
    assert lesions(two, one, (1, 1, 1), "optimal").panoptic_quality == 0.0


def test_of_several_the_partner_is_the_one_that_shares_most():
    assert lesions(row((2, 4), (6, 12)), row((2, 12)), (1, 1, 1)).truth.partner.tolist() == [1]


def test_where_greedy_and_optimal_differ():
    """AX has the largest IoU, 6/12, but with it neither AY (1/8) nor BX (3/11) can be had: greedy
    finds one lesion, optimal two.
    """
    truth, prediction = np.zeros((2, 4, 20, 1), np.uint8)
    truth[0, 0:8] = 1  # A: 8 voxels
    truth[2, 0:4] = 1  # B: 4
    prediction[0, 0:6] = 1  # X: 6 of A, then down to B
    prediction[1, 0] = 1
    prediction[2, 0:3] = 1  # 3 of B
    prediction[0, 7] = 1  # Y: 1 of A
    greedy, best = (
        lesions(prediction, truth, (1, 1, 1), match, 0.1, connectivity=6)
        for match in ("greedy", "optimal")
    )
    assert (greedy.true_positives, greedy.misses, greedy.false_alarms) == (1, 1, 1)
    assert (best.true_positives, best.misses, best.false_alarms) == (2, 0, 0)
    assert greedy.truth.iou.max() == pytest.approx(6 / 12) and sorted(
        best.truth.iou.tolist()
    ) == pytest.approx([1 / 8, 3 / 11])


def test_small_lesions_are_matched_and_not_counted():
    truth, prediction = (
        row((2, 6), (10, 13), (20, 21), (25, 29)),
        row((3, 5), (9, 13), (20, 24), (35, 37), (26, 28)),
    )
    found = lesions(prediction, truth, (10, 10, 10), least_ml=4)  # a voxel is 1 ml
    assert found.truth.counted.tolist() == [True, False, False, True]
    # Found by predictions of 2 ml, which are not counted.
    assert (found.true_positives, found.misses) == (
        2,
        0,
    )
    # Those of 4 ml match small lesions; the one of 2 ml is too small to be one.
    assert found.false_alarms == 0 and found.precision == 1
    assert (
        lesions(row(), truth, (10, 10, 10), least_ml=4).misses,
        lesions(truth, row(), (10, 10, 10), least_ml=4).false_alarms,
    ) == (2, 2)
    # 30 times 0.001 is not less than 0.03.
    assert lesions(row(), row((0, 30)), (1, 1, 1), least_ml=0.03).misses == 1


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1), (4, 5)])
@pytest.mark.parametrize("match", ["overlap", "optimal", "greedy"])
def test_empty_masks(shape, match):
    nothing, something = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    something[1, 2] = something[3, 4] = 1
    spacing = SPACING[: len(shape)]
    both = lesions(nothing, nothing, spacing, match)
    assert (
        all(
            math.isnan(v)
            for v in (both.sensitivity, both.precision, both.f1, both.panoptic_quality)
        )
        and both.rows() == []
    )
    assert (
        both.true_positives == both.misses == both.false_alarms == 0 and both.false_alarms_ml == 0
    )
    alarms, missed = (
        lesions(something, nothing, spacing, match),
        lesions(nothing, something, spacing, match),
    )
    assert (
        alarms.false_alarms == 2
        and math.isnan(alarms.sensitivity)
        and alarms.precision == alarms.f1 == 0
    )
    assert (
        missed.misses == 2 and math.isnan(missed.precision) and missed.sensitivity == missed.f1 == 0
    )
    assert match == "overlap" or missed.panoptic_quality == 0
    assert math.isnan(missed.misses_ml) == (len(shape) == 2)


def test_connectivity():
    chain = np.zeros((4, 4, 4), bool)
    chain[0, 0, 0] = chain[1, 1, 1] = chain[1, 2, 2] = chain[1, 2, 3] = True  # corner, edge, face
    assert [len(lesions(chain, chain, SPACING, connectivity=c).truth.ml) for c in (26, 18, 6)] == [
        1,
        2,
        3,
    ]
    flat = np.eye(4, dtype=bool)
    assert [len(lesions(flat, flat, (1, 1), connectivity=c).truth.ml) for c in (26, 18, 6)] == [
        1,
        1,
        4,
    ]


def test_order_of_memory_does_not_matter():
    rng = np.random.default_rng(0)
    p, t = rng.random((2, 12, 11, 10)) > 0.93
    found, again = (
        lesions(p, t, SPACING, "optimal", 0.2),
        lesions(np.asfortranarray(p), np.asfortranarray(t), SPACING, "optimal", 0.2),
    )
    assert found.rows() == again.rows() and len(found.rows()) > 20


def test_what_does_not_fit_is_refused():
    mask = np.zeros((3, 4, 5), bool)
    for other, spacing in ((mask[:2], SPACING), (mask, (1, 1)), (mask, (1, 1, 0))):
        with pytest.raises(GeometryError):
            lesions(mask, other, spacing)
    for more in (
        {"match": "any"},
        {"threshold": 1.1},
        {"match": "greedy", "threshold": 0},
        {"connectivity": 8},
        {"threshold": float("nan")},
    ):
        with pytest.raises(UsageError):
            lesions(mask, mask, SPACING, **more)
    with pytest.raises(UsageError, match="2-D image with two axes has no volumes"):
        lesions(mask[0], mask[0], (1, 1), least_ml=0.1)


def test_thousands_of_lesions_take_no_longer_than_their_voxels():
    """A loop over lesions with full masks would be 8000 passes over 8 million voxels."""
    truth = np.zeros((200, 200, 200), np.uint8)
    truth[5::10, 5::10, 5::10] = 1
    prediction = np.roll(truth, 1, 0) | truth
    prediction[:, :, 155:] = 0
    began = time.perf_counter()
    found = {
        match: lesions(prediction, truth, (1, 1, 1), match, 0.5 if match != "overlap" else None)
        for match in ("overlap", "optimal", "greedy")
    }
    assert time.perf_counter() - began < 20
    assert {(f.true_positives, f.misses, f.false_alarms) for f in found.values()} == {
        (6000, 2000, 0)
    }


def test_two_voxels_of_a_row_of_three_are_two_lesions():
    row = np.array([1, 0, 1], np.uint8).reshape(1, 3, 1)
    found = lesions(row, row, (1, 1, 1))
    assert (found.true_positives, found.misses, found.false_alarms, found.f1) == (2, 0, 0, 1.0)
    # As many as there can be.
    every_other = (np.indices((3, 3, 3)).sum(axis=0) % 2 == 0).astype(np.uint8)
    assert lesions(every_other, every_other, (1, 1, 1), connectivity=6).true_positives == 14

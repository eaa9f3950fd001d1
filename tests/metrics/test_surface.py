"""Surface distances against their definitions written out, against geometry that is known, and
against the scores of a published challenge.
"""

import itertools

import numpy as np
import pytest

from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.core.errors import GeometryError, UsageError
from delineate.evaluation.scoring import surface_choices
from delineate.metrics import surface
from delineate.metrics.surface import (
    SurfaceSettings,
    assd,
    distances,
    hausdorff,
    hd95,
    measure,
    surface_dice,
)

SPACING = (0.8, 1.3, 4.0)


def blobs(seed, shape=(11, 9, 8), share=0.3):
    rng = np.random.default_rng(seed)
    field = rng.random(shape)
    for axis in range(len(shape)):
        field = field + np.roll(field, 1, axis)
    return field > np.quantile(field, 1 - share)


def pairs():
    one, far = np.zeros((9, 8, 7), bool), np.zeros((9, 8, 7), bool)
    one[1, 2, 3] = far[7, 2, 3] = True
    hollow = np.zeros((9, 8, 7), bool)
    hollow[1:7, 1:7, 1:6] = True
    solid = hollow.copy()
    hollow[3:5, 3:5, 3:5] = False
    yield from ((blobs(n), blobs(n + 50)) for n in range(3))
    yield from ((blobs(n, share=s), blobs(n + 50, share=s)) for n, s in ((7, 0.02), (8, 0.9)))
    yield from ((one, far), (solid, hollow), (np.ones((9, 8, 7), bool), one))


def edges(mask, outside):
    """The places of edge voxels in mm, by asking each of its neighbours."""
    out = []
    for at in itertools.product(*map(range, mask.shape)):
        if mask[at]:
            for axis, step in itertools.product(range(3), (-1, 1)):
                there = list(at)
                there[axis] += step
                inside = mask[tuple(there)] if 0 <= there[axis] < mask.shape[axis] else outside
                if not inside:
                    out.append(np.array(at) * SPACING)
                    break
    return np.array(out)


def nearest(points, others):
    return (
        np.sort(np.linalg.norm(points[:, None] - others[None], axis=2).min(1))
        if len(others)
        else np.full(len(points), np.inf)
    )


@pytest.mark.parametrize("pair", pairs())
@pytest.mark.parametrize("elements", ["voxels", "inner_voxels"])
def test_edge_voxels_are_what_the_definition_says(pair, elements):
    p, t = (edges(mask, elements == "inner_voxels") for mask in pair)
    found = distances(*pair, SPACING, elements)
    if len(p) and len(t):
        np.testing.assert_allclose(found.to_truth, nearest(p, t))
        np.testing.assert_allclose(found.to_prediction, nearest(t, p))
        both = np.concatenate([nearest(p, t), nearest(t, p)])
        assert assd(found) == pytest.approx(both.mean()) and hd95(found, "pooled") == pytest.approx(
            np.percentile(both, 95)
        )
        assert hd95(found) == pytest.approx(
            max(np.percentile(nearest(p, t), 95), np.percentile(nearest(t, p), 95))
        )
        assert surface_dice(found, 1.3) == pytest.approx((both <= 1.3 + 1e-6).mean())
    assert len(found.to_truth) == len(p) and len(found.to_prediction) == len(t)


def corners(mask):
    """Places in mm and codes of the corners of voxels where inside and outside meet."""
    wide = np.pad(mask, 1)
    out = []
    for at in itertools.product(*(range(n + 1) for n in mask.shape)):
        block = wide[tuple(slice(a, a + 2) for a in at)]
        if block.any() and not block.all():
            out.append(
                (
                    np.array(at) * SPACING,
                    sum(1 << n for n, inside in enumerate(block.ravel()) if inside),
                )
            )
    return np.array([place for place, _ in out]), [code for _, code in out]


@pytest.mark.parametrize("pair", pairs())
def test_pieces_of_surface_are_what_the_definition_says(pair):
    (p, p_codes), (t, t_codes) = map(corners, pair)
    found = distances(*pair, SPACING)
    np.testing.assert_allclose(found.to_truth, nearest(p, t))
    np.testing.assert_allclose(found.to_prediction, nearest(t, p))
    areas = surface._areas(np.array(SPACING))
    assert found.prediction_weights.sum() == pytest.approx(areas[p_codes].sum())
    assert found.truth_weights.sum() == pytest.approx(areas[t_codes].sum())


def test_the_area_does_not_depend_on_how_a_cube_is_turned_nor_on_which_side_is_inside():
    areas = surface._areas(np.ones(3))
    for code in range(256):
        inside = {corner for bit, corner in enumerate(surface.CUBE) if code >> bit & 1}
        for order in itertools.permutations(range(3)):
            for flip in itertools.product((0, 1), repeat=3):
                turned = {tuple(c[a] ^ f for a, f in zip(order, flip, strict=True)) for c in inside}
                other = sum(1 << bit for bit, corner in enumerate(surface.CUBE) if corner in turned)
                assert areas[other] == pytest.approx(areas[code])
        assert areas[255 - code] == pytest.approx(areas[code])


def test_areas_that_are_known():
    """A box of a x b x c voxels: faces, bevelled edges, eight cut corners. A sphere: 4 pi r2."""
    box = np.zeros((9, 8, 7), bool)
    box[2:7, 1:7, 3:6] = True
    (a, b, c), d = (np.array([5, 6, 3]) - 1) * SPACING, np.array(SPACING)
    x, y, z = d / 2
    bevels = 4 * (a * np.hypot(y, z) + b * np.hypot(x, z) + c * np.hypot(x, y))
    corner = 0.5 * np.linalg.norm(
        np.cross([x, 0, 0] - np.array([0, y, 0]), [x, 0, 0] - np.array([0, 0, z]))
    )
    found = distances(box, box, SPACING)
    assert found.truth_weights.sum() == pytest.approx(
        2 * (a * b + b * c + a * c) + bevels + 8 * corner
    )
    at = np.ogrid[:60, :60, :60]
    ball = sum((x - 29.3) ** 2 for x in at) <= 24**2
    # Steps make it a little rougher.
    assert distances(ball, ball, (1, 1, 1)).truth_weights.sum() == pytest.approx(
        4 * np.pi * 24**2, rel=0.1
    )


def test_a_flat_image_has_contours():
    square, moved = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    square[5:10, 5:12] = moved[5:10, 8:15] = True
    found = distances(square, moved, (2.0, 0.5))
    assert found.truth_weights.sum() == pytest.approx(2 * (4 * 2 + 6 * 0.5) + 4 * np.hypot(1, 0.25))
    assert hausdorff(found) == pytest.approx(1.5)
    same = distances(square[..., None], moved[..., None], (2.0, 0.5, 7.0))
    np.testing.assert_array_equal(found.to_truth, same.to_truth)
    assert hausdorff(distances(square, moved, (2.0, 0.5), "voxels")) == pytest.approx(1.5)


@pytest.mark.parametrize("elements", ["surfels", "voxels", "inner_voxels"])
def test_a_move_is_as_far_as_it_is(elements):
    a, b = np.zeros((30, 20, 20), bool), np.zeros((30, 20, 20), bool)
    a[5:9, 5:9, 5:9] = b[12:16, 5:9, 5:9] = True
    found = distances(a, b, (1.5, 1, 1), elements)
    assert (
        hausdorff(found) == pytest.approx(10.5)
        and surface_dice(found, 10.5) == 1
        and surface_dice(found, 1) == 0
    )


@pytest.mark.parametrize("elements", ["surfels", "voxels", "inner_voxels"])
def test_empty_masks(elements):
    nothing, something = np.zeros((5, 6, 7), bool), np.zeros((5, 6, 7), bool)
    something[2, 3, 4] = True
    for one, other in ((nothing, something), (something, nothing)):
        found = distances(one, other, SPACING, elements)
        assert (
            hausdorff(found)
            == hd95(found, "pooled")
            == assd(found)
            == assd(found, "directed")
            == np.inf
            and surface_dice(found, 99) == 0
        )
    both = distances(nothing, nothing, SPACING, elements)
    assert all(
        np.isnan(v) for v in (hausdorff(both), hd95(both), assd(both), surface_dice(both, 1))
    )


def test_what_does_not_fit_is_refused():
    mask = np.zeros((3, 4, 5), bool)
    for other, spacing in ((mask[:2], SPACING), (mask, (1, 1)), (mask, (1, 1, 0))):
        with pytest.raises(GeometryError):
            distances(mask, other, spacing)
    for words in (("edges", "directed", 1.0), ("voxels", "mean", 1.0), ("voxels", "pooled", 0.0)):
        with pytest.raises(UsageError):
            surface_choices(*words)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_several_structures_in_either_order_of_memory(dtype):
    p, t = (
        sum(
            (
                n * (blobs(s + n, (24, 20, 16), 0.05))
                for n in (1, 2, 300 if dtype != np.uint8 else 3)
            ),
            np.zeros((24, 20, 16)),
        )
        for s in (0, 10)
    )
    p[t > 300], t[p > 300] = 0, 0
    values, choices = [2, 1, 77], SurfaceSettings("voxels", "pooled", 1.5)
    p, t = p.astype(dtype), t.astype(dtype)
    p[p > 2], t[t > 2] = 0, 0
    found = measure(p, t, values, SPACING, choices)
    assert list(found) == [
        "hausdorff_of_voxels_mm",
        "hd95_pooled_of_voxels_mm",
        "assd_of_voxels_mm",
        "surface_dice_1.5mm_of_voxels",
    ]
    for n, value in enumerate(values[:2]):
        d = distances(p == value, t == value, SPACING, "voxels")
        assert [v[n] for v in found.values()] == pytest.approx(
            [hausdorff(d), hd95(d, "pooled"), assd(d), surface_dice(d, 1.5)]
        )
    assert all(np.isnan(v[2]) for v in found.values())
    again = measure(np.asfortranarray(p), np.asfortranarray(t), values, SPACING, choices)
    for name, of in found.items():
        np.testing.assert_allclose(again[name], of)


def test_the_published_scores_of_a_real_liver(real_data):
    """CHAOS gives Dice 0.978, RAVD 0.665 %, ASSD 0.734 mm and MSSD 14 mm for this pair."""
    case = real_data / "chaos_ct"
    found = evaluate(
        case / "Segmentation",
        case / "Ground",
        options=EvaluateOptions(like=case / "DICOM_anon", surface="inner_voxels"),
    )
    said = {row.metric: row.value for row in found.scores}
    assert said["dice"] == pytest.approx(0.978, abs=5e-4) and said[
        "absolute_volume_difference_percent"
    ] == pytest.approx(0.665, abs=5e-4)
    assert said["assd_of_inner_voxels_mm"] == pytest.approx(0.734, abs=5e-4) and said[
        "hausdorff_of_inner_voxels_mm"
    ] == pytest.approx(14, abs=1e-6)

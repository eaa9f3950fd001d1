from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conftest import GRIDS, affine
from tests.plans import small_plan

from delineate.core.errors import GeometryError, InputError
from delineate.core.grid import Grid
from delineate.core.plan import Channel, Normalisation
from delineate.core.volume import Volume
from delineate.preprocessing import prepare as prepare_module
from delineate.preprocessing.prepare import prepare, prepare_label, restore, trace

BIG = {name: Grid((46, 40, 34), g.affine) for name, g in GRIDS.items()}


def blobs(grid: Grid) -> np.ndarray:
    """Two structures of different size off the centre, so that any flip or swap shows."""
    ijk = np.indices(grid.shape).reshape(3, -1).T
    mm = grid.to_mm(ijk) - grid.centre_mm
    extent = np.abs(grid.to_mm([n - 1 for n in grid.shape]) - grid.to_mm([0, 0, 0])) + 1e-6
    scaled = mm / extent.clip(10)
    out = np.zeros(len(ijk), np.uint8)
    out[(((scaled - (0.14, 0.1, 0.05)) / (0.2, 0.25, 0.3)) ** 2).sum(1) < 1] = 1
    out[(((scaled - (-0.25, -0.15, -0.1)) / (0.12, 0.2, 0.2)) ** 2).sum(1) < 1] = 2
    return out.reshape(grid.shape)


def one_hot(classes: np.ndarray, n: int) -> torch.Tensor:
    return (
        torch.nn.functional.one_hot(torch.from_numpy(classes.astype(np.int64)), n)
        .movedim(-1, 0)
        .float()
    )


def dice(a, b, value):
    return 2 * ((a == value) & (b == value)).sum() / max(1, (a == value).sum() + (b == value).sum())


@pytest.mark.parametrize("name", list(BIG))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9, 2.5, 1.4)])
@pytest.mark.parametrize(
    ("orientation", "crop"),
    [("RAS", "none"), ("ASR", "nonzero"), ("LPI", "nonzero"), ("kji", "not_zero")],
)
def test_restore_undoes_prepare_on_every_grid(name, spacing, orientation, crop):
    grid = BIG[name]
    truth = blobs(grid)
    assert (truth == 1).sum() > 200 < (truth == 2).sum()
    image = Volume((truth > 0).astype(np.float32) * 100, grid)
    plan = small_plan(
        spacing_mm=spacing,
        orientation=orientation,
        crop=crop,
        resampling="spline" if crop == "not_zero" else "cubic",
    )
    x, record = prepare(image, plan)
    assert x.shape == (1, *record.prepared.shape)
    assert record.prepared.codes == (orientation if plan.is_oriented else grid.codes[::-1])
    classes = prepare_label(Volume(truth, grid, "label"), record, {1: 1, 2: 2})
    results = []
    for axis, depth in itertools.product(range(3), (1, 5, 1000)):
        scores = one_hot(classes, 3).movedim(axis + 1, 1)
        results.append(
            restore(torch.split(scores, depth, dim=1), record, axis, np.array([0, 1, 2], np.uint8))
        )
    # Slabs and their axis change nothing.
    assert all(np.array_equal(r, results[0]) for r in results)
    # A flip or swap would leave next to nothing.
    assert min(dice(results[0], truth, v) for v in (1, 2)) > (
        0.8 if record.nearest is None else 0.65
    )


def test_nothing_changes_where_nothing_is_asked():
    grid = Grid((8, 9, 10), np.diag([1.0, 1, 1, 1]))
    array = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    x, _ = prepare(Volume(array, grid), small_plan())
    assert np.array_equal(x[0].numpy(), array)


def test_the_image_and_its_label_stay_together():
    grid = BIG["oblique"]
    truth = blobs(grid)
    plan = small_plan(spacing_mm=(1.3, 1.1, 1.7))
    x, record = prepare(Volume((truth == 1).astype(np.float32), grid), plan)
    classes = prepare_label(Volume(truth, grid, "label"), record, {1: 1, 2: 2})
    assert (
        np.array_equal(x[0].numpy() > 0.5, classes == 1)
        or ((x[0].numpy() > 0.5) != (classes == 1)).mean() < 0.005
    )


def test_label_values_become_class_indices():
    grid = Grid((8, 8, 8), np.eye(4))
    label = np.zeros(grid.shape, np.uint8)
    label[2:6] = 7
    plan = small_plan(names={4: "a", 7: "b"})
    _, record = prepare(Volume(label.astype(np.float32), grid), plan)
    assert set(
        np.unique(prepare_label(Volume(label, grid, "label"), record, plan.labels.compact()))
    ) == {0, 2}


def test_ties_and_values_of_restore():
    grid = Grid((4, 4, 4), np.eye(4))
    _, record = prepare(Volume(np.ones(grid.shape, np.float32), grid), small_plan())
    out = restore([torch.zeros(3, 4, 4, 4)], record, 0, np.array([0, 5, 9], np.uint8))
    assert not out.any()  # equal scores are background
    with pytest.raises(ValueError, match="ended"):
        restore([torch.zeros(3, 2, 4, 4)], record, 0, np.array([0, 5, 9], np.uint8))


def test_wrong_channels_and_places_are_refused():
    grid = Grid((8, 8, 8), np.eye(4))
    with pytest.raises(InputError, match=r"2 channel\(s\), the plan needs 1"):
        prepare(Volume(np.zeros((2, 8, 8, 8), np.float32), grid), small_plan())
    _, record = prepare(Volume(np.zeros(grid.shape, np.float32), grid), small_plan())
    moved = Grid(grid.shape, affine((1, 1, 1), origin=(3, 0, 0)))
    with pytest.raises(GeometryError, match="mm"):
        prepare_label(Volume(np.zeros(grid.shape, np.uint8), moved, "label"), record, {1: 1})


def test_robust_normalisation_ignores_a_few_extreme_voxels():
    rng = np.random.default_rng(0)
    grid = Grid((30, 30, 30), np.eye(4))
    plan = small_plan(channels=(Channel(name="MR", normalise=Normalisation(kind="robust")),))
    calm = rng.normal(500, 50, grid.shape).astype(np.float32)
    wild = calm.copy()
    wild[0, 0, :5] = 1.7e6
    a, b = (prepare(Volume(v, grid), plan)[0] for v in (calm, wild))
    assert abs(float(a.mean())) < 0.05 and abs(float(a.std()) - 1) < 0.05
    assert (a - b)[0, 1:].abs().max() < 0.05
    scaled, _ = prepare(Volume(calm * 1e3, grid), plan)
    assert torch.allclose(a, scaled, atol=1e-3)
    constant, _ = prepare(Volume(np.full(grid.shape, 7, np.uint8), grid), plan)
    assert not constant.any()


def test_window_normalisation_and_nan():
    grid = Grid((8, 8, 8), np.eye(4))
    plan = small_plan(
        channels=(
            Channel(
                name="CT",
                normalise=Normalisation(kind="window", low=-100, high=300, mean=100, std=50),
            ),
        )
    )
    array = np.full(grid.shape, 150, np.float32)
    array[0, 0, 0], array[7, 7, 7], array[3, 3, 3] = -3000, 30000, np.nan
    x, _ = prepare(Volume(array, grid), plan)
    assert [
        float(x[0, 0, 0, 0]),
        float(x[0, 7, 7, 7]),
        float(x[0, 3, 3, 3]),
        float(x[0, 1, 1, 1]),
    ] == [-4, 4, -4, 1]


def test_standard_and_range_normalisation_look_at_every_voxel():
    rng = np.random.default_rng(0)
    head = np.zeros((20, 24, 18), np.int16)
    head[3:15, 4:20, 2:16] = rng.integers(50, 900, (12, 16, 14))
    head[8, 8, 8] = 0  # a hole is outside too
    inside = head[head != 0].astype(float)
    image = Volume(head, Grid.from_spacing(head.shape, (1, 1, 1)))

    def prepared(**rule):
        plan = small_plan(
            channels=(Channel(name="MR", normalise=Normalisation(**rule)),), crop="not_zero"
        )
        x, record = prepare(image, plan)
        assert record.start == (3, 4, 2) and record.stop == (15, 20, 16)  # tight
        return x[0].numpy(), head[3:15, 4:20, 2:16].astype(float)

    found, box = prepared(kind="standard")
    assert np.allclose(found, (box - box.mean()) / box.std(), atol=1e-4)
    found, box = prepared(kind="standard", inside="nonzero")
    assert np.allclose(
        found, np.where(box == 0, 0, (box - inside.mean()) / inside.std()), atol=1e-4
    )
    found, box = prepared(kind="range")
    assert found.min() == 0 and found.max() == 1 and np.allclose(found, box / box.max(), atol=1e-6)
    constant = Volume(np.full((8, 8, 8), 7, np.int16), Grid.from_spacing((8, 8, 8), (1, 1, 1)))
    for kind in ("standard", "range"):
        assert not prepare(
            constant, small_plan(channels=(Channel(name="MR", normalise=Normalisation(kind=kind)),))
        )[0].any()


def test_splines_take_the_nearest_of_thick_slices():
    plan = small_plan(spacing_mm=(1.0, 1.0, 1.0), resampling="spline")
    values = np.random.default_rng(1).normal(size=(10, 10, 4)).astype(np.float32)
    x, _ = prepare(Volume(values, Grid.from_spacing((10, 10, 4), (1, 1, 4))), plan)
    assert np.allclose(x[0].numpy(), np.repeat(values, 4, axis=2), atol=1e-5)
    # Thick along two axes: neither is left out.
    x, _ = prepare(Volume(values, Grid.from_spacing((10, 10, 4), (4, 1, 4))), plan)
    assert not np.allclose(x[0].numpy()[::4], np.repeat(values, 4, axis=2), atol=1e-2)


def test_thick_slices_are_restored_from_the_nearest_along_any_marching_axis():
    image = Volume(
        np.random.default_rng(2).normal(size=(10, 8, 4)).astype(np.float32),
        Grid.from_spacing((10, 8, 4), (1, 1, 4)),
    )
    record = trace(image, small_plan(spacing_mm=(1.25, 1.0, 5.3), resampling="spline"))
    assert record.nearest == 2 and record.prepared.shape == (8, 8, 3)
    scores = one_hot(np.random.default_rng(3).integers(0, 3, (8, 8, 3)), 3)
    results = [
        restore(
            torch.split(scores.movedim(a + 1, 1), 1, dim=1),
            record,
            a,
            np.array([0, 1, 2], np.uint8),
        )
        for a in range(3)
    ]
    assert all(np.array_equal(r, results[0]) for r in results)
    # The nearest of 3 to each of 4.
    planes = np.clip(np.floor((np.arange(4) + 0.5) * 3 / 4), 0, 2).astype(int)
    for k, plane in enumerate(planes):
        alone = restore(
            torch.split(scores[..., [plane]], 1, dim=1),
            _one_plane(record),
            0,
            np.array([0, 1, 2], np.uint8),
        )
        assert np.array_equal(results[0][..., k], alone[..., 0])


def _one_plane(record):
    """The record of a single slice of the same scan."""
    source, prepared = (Grid((*g.shape[:2], 1), g.affine) for g in (record.source, record.prepared))
    return replace(record, source=source, oriented=source, stop=(10, 8, 1), prepared=prepared)


def test_each_overlapping_class_above_the_threshold_sets_its_bit():
    # (class, plane, 1, 1)
    scores = torch.tensor([[0.9, 0.1, 0.6], [0.6, 0.4, 0.2], [0.1, 0.2, 0.8]])[:, :, None, None]
    image = Volume(np.zeros((3, 1, 1), np.float32), Grid.from_spacing((3, 1, 1), (1, 1, 1)))
    _, record = prepare(image, small_plan())
    assert restore([scores], record, 0, np.zeros(1, np.uint8), above=0.5).ravel().tolist() == [
        0b011,
        0,
        0b101,
    ]


def test_body_crop_keeps_the_body():
    grid = Grid((40, 40, 40), np.eye(4))
    array = np.full(grid.shape, -1000, np.int16)
    array[10:30, 12:31, 5:36] = 40
    array[5, :2, :6] = 100  # a cable
    record = trace(Volume(array, grid, "HU"), small_plan(crop="body"))
    assert record.start == (8, 10, 3) and record.stop == (32, 33, 38)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_looking_only_where_a_class_could_win_changes_nothing(axis):
    """Structures with soft borders, third classes that win between two others, and one that never
    wins.
    """
    grid = Grid.from_spacing((90, 150, 80), (0.8, 0.8, 0.9))
    record = trace(
        Volume(np.zeros(grid.shape, np.float32), grid), small_plan(spacing_mm=(1.7, 1.5, 0.9))
    )
    i, j, k = record.prepared.shape
    rng = np.random.default_rng(4)
    logits = torch.full((40, i, j, k), -4.0)
    logits[0] = 3
    for index in range(1, 39):
        low = rng.integers(0, [i - 9, j - 9, k - 9])
        box = tuple(slice(a, a + 9) for a in low)
        logits[(index, *box)] += torch.from_numpy(rng.normal(8, 3, (9, 9, 9)).astype(np.float32))
    scores = logits.softmax(0).half().movedim(axis + 1, 1)
    values = np.array([*range(39), 200], np.uint8)
    plain, quick = (
        restore(torch.split(scores, 16, dim=1), record, axis, values, sum_to_one=quick)
        for quick in (False, True)
    )
    assert np.array_equal(plain, quick) and len(np.unique(plain)) > 30 and 200 not in plain
    assert plain.flags.f_contiguous


@pytest.mark.parametrize("rule", ["body", "nonzero", "not_zero"])
def test_the_crop_is_that_of_the_definition_in_any_memory_order(rule):
    array = np.full((1, 40, 30, 50), -1000, np.int16)
    array[0, 7:21, 5:25, 20:44] = 60
    array[0, 30, 3, 3] = 900  # one voxel: no body
    if rule == "not_zero":
        array += 1000
    wanted = {
        "body": ((5, 3, 18), (23, 27, 46)),
        "nonzero": ((5, 1, 1), (33, 27, 46)),
        "not_zero": ((7, 3, 3), (31, 25, 44)),
    }[rule]
    for order in ("C", "F"):
        assert prepare_module._crop_box(np.asarray(array, order=order), rule) == wanted

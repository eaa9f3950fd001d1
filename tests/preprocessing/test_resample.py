from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from delineate.preprocessing.resample import (
    apply_axis,
    axis_weights,
    resample_image,
    resample_labels,
    scale_positions,
    scale_weights,
)


@pytest.mark.parametrize("kernel", ["cubic", "linear", "nearest", "spline"])
@pytest.mark.parametrize(("n_in", "n_out"), [(10, 10), (10, 23), (23, 10), (7, 1), (1, 5)])
def test_every_row_sums_to_one(kernel, n_in, n_out):
    weights = axis_weights(scale_positions(n_in, n_out), n_in, kernel, n_in / n_out)
    assert weights.shape == (n_out, n_in)
    assert np.allclose(weights.sum(1), 1, atol=1e-6)


def test_a_straight_line_stays_straight_away_from_the_edges():
    line = torch.linspace(0, 39, 40)
    out = scale_weights(40, 100, "cubic").dense @ line
    expected = torch.from_numpy(scale_positions(40, 100)).float()
    assert torch.allclose(out[10:-10], expected[10:-10], atol=1e-4)


def test_shrinking_removes_what_cannot_be_shown():
    """A pattern finer than the new grid must vanish, not fold into a coarse false one."""
    fine = torch.from_numpy(np.cos(np.pi * np.arange(96) * 0.9)).float()
    shrunk = scale_weights(96, 32, "cubic").dense @ fine
    naive = torch.from_numpy(axis_weights(scale_positions(96, 32), 96, "cubic", 1.0)) @ fine
    assert shrunk[4:-4].abs().max() < 0.05 < naive.abs().max()


def test_cubic_is_closer_than_linear_on_a_smooth_signal():
    x = np.arange(60)
    signal = torch.from_numpy(np.sin(x / 3)).float()
    truth = torch.from_numpy(np.sin(scale_positions(60, 150) / 3)).float()
    error = {
        k: (scale_weights(60, 150, k).dense @ signal - truth)[10:-10].abs().max()
        for k in ("cubic", "linear")
    }
    assert error["cubic"] < 0.25 * error["linear"]


def test_splines_are_those_of_an_independent_library_and_pass_through_the_values():
    import SimpleITK

    rng = np.random.default_rng(3)
    # Constant ends: there the two treat edges alike.
    row = np.concatenate([np.full(20, 0.7), rng.normal(size=31), np.full(20, -0.4)])
    assert np.allclose(axis_weights(np.arange(71.0), 71, "spline"), np.eye(71), atol=1e-6)
    image = SimpleITK.GetImageFromArray(np.tile(row, (5, 5, 1)))
    for n_out in (120, 40):
        positions = scale_positions(71, n_out)
        points = [
            image.TransformContinuousIndexToPhysicalPoint((float(p), 2.0, 2.0))
            for p in np.clip(positions, 0, 70)
        ]
        expected = [
            image.EvaluateAtPhysicalPoint(point, SimpleITK.sitkBSpline3) for point in points
        ]
        assert (
            np.abs(axis_weights(positions, 71, "spline", 71 / n_out) @ row - expected).max() < 1e-5
        )


def test_what_a_spline_overshoots_is_clipped():
    step = np.zeros((12, 3, 3), np.float32)
    step[6:] = 1
    out = resample_image(step, (30, 3, 3), ("spline",) * 3, transform=lambda x: x.mul_(2))
    raw = torch.from_numpy(axis_weights(scale_positions(12, 30), 12, "spline")) @ torch.from_numpy(
        step[:, 0, 0]
    )
    assert raw.max() > 1.05 and out.min() == 0 and out.max() == 2


def test_axes_are_not_mixed_up():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 11, 13)).astype(np.float32)
    for axis, n in enumerate((5, 20, 7)):
        weights = scale_weights(x.shape[axis], n)
        expected = np.moveaxis(np.tensordot(weights.dense.numpy(), x, axes=(1, axis)), 0, axis)
        assert np.allclose(apply_axis(torch.from_numpy(x), weights, axis), expected, atol=1e-5)
    whole = resample_image(x, (5, 20, 7), ("cubic", "linear", "cubic"))
    step = torch.from_numpy(x)
    for axis, (n, kernel) in enumerate(zip((5, 20, 7), ("cubic", "linear", "cubic"), strict=True)):
        step = apply_axis(step, scale_weights(x.shape[axis], n, kernel), axis)
    assert torch.allclose(whole, step, atol=1e-5)


def test_labels_equal_the_one_hot_definition():
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 5, (6, 7, 5)).astype(np.uint8)
    labels = coarse.repeat(3, 0).repeat(2, 1).repeat(4, 2)
    for shape in [(9, 20, 13), (30, 14, 20), (18, 14, 20)]:
        scores = []
        for value in range(5):
            part = torch.from_numpy((labels == value).astype(np.float32))
            for axis in range(3):
                part = apply_axis(
                    part, scale_weights(labels.shape[axis], shape[axis], "linear"), axis
                )
            scores.append(part)
        stacked = torch.stack(scores)
        found = torch.from_numpy(resample_labels(labels, shape).astype(np.int64))
        chosen = stacked.gather(0, found[None])[0]
        assert torch.all(chosen >= stacked.max(0).values - 1e-5)  # ties may fall either way


def test_labels_absent_or_whole():
    assert not resample_labels(np.zeros((4, 5, 6), np.uint8), (8, 3, 6)).any()
    assert (resample_labels(np.full((4, 5, 6), 2, np.uint8), (8, 3, 6)) == 2).all()


@pytest.mark.parametrize("kernel", ["cubic", "linear", "nearest", "spline"])
@pytest.mark.parametrize(("n_in", "n_out"), [(300, 130), (70, 200), (150, 151), (3, 140)])
def test_bands_are_the_whole_matrix(kernel, n_in, n_out):
    rng = np.random.default_rng(1)
    bands = scale_weights(n_in, n_out, kernel)
    for shape, axis in (
        ((n_in, 5, 80), 0),
        ((4, n_in, 80), 1),
        ((4, 3, n_in), 2),
        ((n_in, 7), 0),
        ((2, n_in, 3), 1),
    ):
        x = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        expected = np.moveaxis(
            np.tensordot(bands.dense.double().numpy(), x.double().numpy(), axes=(1, axis)), 0, axis
        )
        assert np.allclose(apply_axis(x, bands, axis), expected, atol=2e-5)
    if n_in > 64 and kernel != "spline":
        assert sum(block.numel() for _, _, block in bands.blocks) < 0.9 * bands.dense.numel()
    low, high = n_in // 3, n_in // 3 + 2
    part, made, read = bands.touching(low, high)
    only = torch.zeros(n_in)
    only[low:high] = torch.tensor([1.0, -2.0])[: high - low]
    whole = bands.dense @ only
    assert torch.allclose(apply_axis(only[read], part, 0), whole[made], atol=1e-6)
    outside = torch.ones(n_out, dtype=torch.bool)
    outside[made] = False
    assert not whole[outside].abs().gt(1e-6).any()


def test_memory_order_and_reversed_axes_change_nothing():
    rng = np.random.default_rng(2)
    x = rng.integers(-1000, 1000, (75, 20, 90)).astype(np.int16)
    kernels, shape = ("cubic", "linear", "cubic"), (70, 20, 30)
    expected = resample_image(x, shape, kernels, transform=lambda block: block.clamp_(-500, 500))
    for order in itertools.permutations(range(3)):
        back = [order.index(a) for a in range(3)]
        lies_so = np.ascontiguousarray(x.transpose(order)).transpose(back)
        for flips in ((), (0,), (1, 2), (0, 1, 2)):
            held = np.flip(np.flip(lies_so, flips).copy(order="K"), flips)
            assert np.array_equal(held, x)
            found = resample_image(
                held, shape, kernels, transform=lambda block: block.clamp_(-500, 500)
            )
            assert torch.allclose(found, expected, atol=1e-3), (order, flips)
    spline = resample_image(x, (30, 20, 100), ("spline", "nearest", "spline"))
    assert torch.allclose(
        resample_image(
            np.flip(np.flip(x, 1).copy(), 1), (30, 20, 100), ("spline", "nearest", "spline")
        ),
        spline,
        atol=1e-3,
    )

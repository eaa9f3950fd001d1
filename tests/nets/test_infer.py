from __future__ import annotations

import itertools

import pytest
import torch
from tests.plans import small_network, small_plan
from torch import nn

from delineate.core.plan import Inference
from delineate.nets import infer
from delineate.nets.infer import Engine, marching_axis, slabs

SHAPES = [(40, 33, 50), (10, 20, 30), (70, 16, 16), (5, 6, 7), (16, 50, 17)]


class Pointwise(nn.Module):
    """Logits that depend on the voxel alone: however windows fall, the scores must not change."""

    def forward(self, x):
        return torch.cat([x * 0, x, -x], 1)


class Lateral(nn.Module):
    """Says "left part" in the lower half of the first axis of the window and "right part" in the upper half."""

    def forward(self, x):
        ramp = torch.linspace(-1, 1, x.shape[2]).view(1, 1, -1, *([1] * (x.ndim - 3))).expand(x.shape[0], 1, *x.shape[2:])
        return torch.cat([torch.full_like(ramp, -5), -ramp * 5, ramp * 5], 1)


def engine(dims, module, plan=None, weights=(1.0,)) -> Engine:
    return Engine(plan or small_plan(dims), tuple((module, w) for w in weights), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_blending_changes_nothing_and_slabs_cover_the_scan(dims, shape):
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    axis = marching_axis(shape, small_plan(dims))
    expected = torch.softmax(torch.cat([x * 0, x, -x]), 0).movedim(axis + 1, 1)
    for weights, mirror in itertools.product(((1.0,), (1.0, 2.0)), ((), (1,))):
        out = torch.cat(list(slabs(x, engine(dims, Pointwise(), weights=weights), Inference(mirror=mirror))), 1)
        assert out.shape == expected.shape
        assert (out - expected).abs().max() < 1e-5


def test_slabs_come_before_the_last_window_ran():
    calls = []

    class Counting(Pointwise):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    stream = slabs(torch.zeros(1, 20, 20, 80), engine(3, Counting()))
    infer_at_once = infer.WINDOW_VOXELS
    infer.WINDOW_VOXELS = 16**3
    try:
        next(stream)
        early = sum(calls)
        list(stream)
    finally:
        infer.WINDOW_VOXELS = infer_at_once
    assert early < sum(calls) / 2


def test_held_scores_do_not_grow_with_the_scan(monkeypatch):
    sizes = []
    original = infer._held
    monkeypatch.setattr(infer, "_held", lambda *a: sizes.append(original(*a)) or sizes[-1])
    for length in (40, 400):
        list(slabs(torch.zeros(1, 16, 16, length), engine(3, Pointwise())))
    assert sizes[0].shape == sizes[1].shape


def test_mirroring_swaps_sided_structures():
    """A network that calls things by their place in the window is torn between the two when mirrored without swapping."""
    plan = small_plan(3)
    x = torch.zeros(1, 16, 16, 16)
    plain = torch.cat(list(slabs(x, engine(3, Lateral(), plan))), 1)
    mirrored = torch.cat(list(slabs(x, engine(3, Lateral(), plan), Inference(mirror=(0,)))), 1)
    assert (plain - mirrored).abs().max() < 1e-5
    unsided = small_plan(3, names={1: "one", 2: "two"})
    torn = torch.cat(list(slabs(x, engine(3, Lateral(), unsided), Inference(mirror=(0,)))), 1)
    assert (plain - torn).abs().max() > 0.3


def test_half_precision_accumulation_agrees(monkeypatch):
    x = torch.randn(1, 40, 33, 50)
    full = torch.cat(list(slabs(x, engine(3, Pointwise()))), 1)
    monkeypatch.setattr(infer, "HALF_ABOVE_BYTES", 1)
    half = torch.cat(list(slabs(x, engine(3, Pointwise()))), 1)
    assert half.dtype == torch.float16
    assert (full - half.float()).abs().max() < 5e-3


def test_a_flat_network_sees_each_slice_once():
    net = small_network(2)
    assert net.dims == 2
    seen = []

    class Recording(Pointwise):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return super().forward(x)

    list(slabs(torch.zeros(1, 16, 16, 9), engine(2, Recording())))
    assert sum(s[0] for s in seen) == 9 and all(len(s) == 4 for s in seen)

"""The contract of every network: sizes, normalisations, precision, round trip, and that it can learn."""

from __future__ import annotations

import pytest
import torch
from tests.plans import small_network

from delineate.core.errors import BundleError
from delineate.nets.blocks import InstanceNorm
from delineate.nets.build import build, load_weights, memory_format, parameters, weights_of
from delineate.nets.infer import fast_dtype

CASES = [(dims, encoder, norm) for dims in (2, 3) for encoder in ("plain", "residual") for norm in ("instance", "batch", "group")]


def example(dims: int, size: int = 16, channels: int = 1) -> torch.Tensor:
    space = (size, size + 8, size + 4)[:dims]
    return torch.randn(2, channels, *space, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format(dims))


@pytest.mark.parametrize(("dims", "encoder", "norm"), CASES)
def test_shapes_and_deep_supervision(dims, encoder, norm):
    net = small_network(dims, encoder=encoder, norm=norm, channels=3, classes=5)
    module, x = build(net, seed=0), example(dims, channels=3)
    outputs = module.train()(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 5, *x.shape[2:])]  # two levels: the coarser one teaches nothing
    assert tuple(module.eval()(x).shape) == (2, 5, *x.shape[2:])


def test_deeper_levels_have_heads():
    net = small_network(widths=(4, 8, 8, 8), strides=((2, 2, 2),) * 3, kernels=((3, 3, 3),) * 4)
    outputs = build(net, 0).train()(torch.randn(1, 1, 16, 16, 16))
    assert [o.shape[-1] for o in outputs] == [16, 8]


@pytest.mark.parametrize(("dims", "encoder", "norm"), CASES)
def test_low_precision_agrees(dims, encoder, norm):
    module, x = build(small_network(dims, encoder=encoder, norm=norm), seed=1).eval(), example(dims)
    with torch.inference_mode():
        full = module(x).softmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            low = module(x).float().softmax(1)
    assert (full - low).abs().max() < 0.06
    assert (full.argmax(1) == low.argmax(1)).float().mean() > 0.97


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_round_trip_and_seed(dims):
    net = small_network(dims)
    first, second, other = build(net, 0), build(net, 0), build(net, 1)
    x = example(dims)
    first.eval(), second.eval(), other.eval()
    assert torch.equal(first(x), second(x)) and not torch.equal(first(x), other(x))
    load_weights(other, weights_of(first))
    assert torch.equal(first(x), other(x))


def test_foreign_weights_are_refused_or_taken_where_they_fit():
    wide = build(small_network(classes=7), 0)
    narrow = build(small_network(classes=3), 1)
    with pytest.raises(BundleError, match="heads"):
        load_weights(narrow, weights_of(wide))
    left = load_weights(narrow, weights_of(wide), strict=False)
    assert left == ["heads.0.weight", "heads.0.bias"]


def test_instance_norm_is_the_library_s(monkeypatch):
    x = torch.randn(3, 6, 5, 4, 3, requires_grad=True)
    mine = InstanceNorm(6)
    expected = torch.nn.functional.instance_norm(x, weight=mine.weight, bias=mine.bias)
    assert torch.allclose(mine(x), expected, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns(dims):
    """A few steps on one batch bring the loss well down: gradients reach where they must."""
    from delineate.core.plan import Loss
    from delineate.learn.losses import deeply_supervised

    module, x = build(small_network(dims, classes=2), seed=0).train(), example(dims)
    target = (
        (torch.nn.functional.avg_pool3d(x[:, 0:1], 5, 1, 2) if dims == 3 else torch.nn.functional.avg_pool2d(x[:, 0:1], 5, 1, 2))[:, 0].gt(0).long()
    )
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = deeply_supervised(module(x), target, Loss())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_every_parameter_gets_a_gradient():
    module = build(small_network(encoder="residual"), 0).train()
    sum(o.square().mean() for o in module(example(3))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert parameters(module) > 1000


def test_the_fast_dtype_exists_here():
    assert fast_dtype(torch.device("cpu")) in (torch.bfloat16, torch.float32)

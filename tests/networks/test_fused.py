"""Instance norm and leaky ReLU in one operation: against the definition in float64, forward and
backward.
"""

import pytest
import torch
from tests.plans import small_network
from torch.nn import functional

from delineate.networks import fused
from delineate.networks.build import build

pytestmark = pytest.mark.skipif(
    fused._openmp() is None, reason="torch's OpenMP library was not found here"
)

SHAPES = [
    (2, 8, 20, 28, 20),
    (2, 5, 7, 9, 11),
    (1, 1, 4, 4, 4),
    (3, 16, 40, 40),
    (2, 600, 3, 4, 5),
    (2, 3, 4, 3),
]


def drawn(shape, dtype, mean=2.0, seed=0):
    layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    torch.manual_seed(seed)
    return (torch.randn(shape) * 3 + mean).to(dtype).to(memory_format=layout)


def by_definition(x, weight, bias, slope):
    axes = tuple(range(2, x.ndim))
    apart = x - x.mean(axes, keepdim=True)
    y = apart / (apart.square().mean(axes, keepdim=True) + 1e-5).sqrt()
    each = (1, -1, *(1 for _ in axes))
    y = y * weight.view(each) + bias.view(each)
    return torch.where(y > 0, y, y * slope)


def worst(found, wanted):
    return float(
        (found.detach().double() - wanted.detach()).abs().max() / wanted.detach().abs().max()
    )


@pytest.mark.parametrize("slope", [0.01, 0.0, 1.0])
@pytest.mark.parametrize("dtype", fused.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_what_the_definition_says(shape, dtype, slope):
    x, gradient = drawn(shape, dtype).requires_grad_(), drawn(shape, dtype, 0.0, seed=3)
    weight, bias = (
        torch.randn(shape[1], generator=torch.Generator().manual_seed(n)).requires_grad_()
        for n in (1, 2)
    )
    found = fused.norm_act(x, weight, bias, slope, 1e-5)
    assert found.dtype == dtype and found.stride() == x.stride()
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    wanted = by_definition(*exact, slope)
    tolerance = 2e-5 if dtype == torch.float32 else 2**-8  # half a step of bfloat16's seven digits
    assert worst(found, wanted) < tolerance
    for mine, theirs in zip(
        torch.autograd.grad(found, (x, weight, bias), gradient),
        torch.autograd.grad(wanted, exact, gradient.double()),
        strict=True,
    ):
        assert worst(mine, theirs) < tolerance


def test_a_mean_far_from_zero_loses_nothing():
    x = drawn((1, 8, 16, 16, 16), torch.float32, mean=1000.0)
    weight, bias = torch.ones(8), torch.zeros(8)
    assert (
        worst(
            fused.norm_act(x, weight, bias, 1.0, 1e-5), by_definition(x.double(), weight, bias, 1.0)
        )
        < 1e-4
    )


def test_the_same_input_gives_the_same_bits():
    x = drawn((2, 16, 40, 40, 40), torch.float32)
    first, again = (
        fused.norm_act(x, torch.ones(16), torch.zeros(16), 0.01, 1e-5) for _ in range(2)
    )
    assert torch.equal(first, again)


def test_other_memory_and_other_numbers_are_left_to_the_library():
    x = drawn((2, 8, 6, 6, 6), torch.float32)
    assert fused.fits(x)
    assert (
        not fused.fits(x.contiguous())
        and not fused.fits(x.double())
        and not fused.fits(x[:, :, ::2])
    )


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "prelu"])
def test_a_network_learns_the_same_with_and_without(activation, monkeypatch):
    net = small_network(activation=activation)
    gradients = []
    for fits in (fused.fits, lambda x: False):
        monkeypatch.setattr(fused, "fits", fits)
        module = build(net, seed=0).train()
        outputs = module(drawn((2, 1, 16, 16, 16), torch.float32))
        loss = functional.cross_entropy(
            outputs[0] if isinstance(outputs, list) else outputs,
            torch.ones(2, 16, 16, 16, dtype=torch.int64),
        )
        loss.backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        )
    assert worst(gradients[0], gradients[1].double()) < 1e-3

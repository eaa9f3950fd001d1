"""The U-Net's own promises, the bricks under all networks, and weights in and out; what every
network must satisfy is in tests/contracts.
"""

from __future__ import annotations

import pytest
import torch
from tests.plans import small_network
from torch import nn

from delineate.core.errors import BundleError
from delineate.inference.engine import fast_dtype
from delineate.networks.blocks import (
    GROUPS,
    SMALL,
    Conv3d,
    ConvNormAct,
    InstanceNorm,
    ResidualBlock,
    norm,
)
from delineate.networks.build import build, load_weights, memory_format, weights_of

CASES = [
    (dims, encoder, norm)
    for dims in (2, 3)
    for encoder in ("plain", "residual")
    for norm in ("instance", "batch", "group")
]


def example(dims: int, size: int = 16, channels: int = 1) -> torch.Tensor:
    space = (size, size + 8, size + 4)[:dims]
    return torch.randn(2, channels, *space, generator=torch.Generator().manual_seed(0)).to(
        memory_format=memory_format(dims)
    )


@pytest.mark.parametrize(("dims", "encoder", "norm"), CASES)
def test_shapes_and_deep_supervision(dims, encoder, norm):
    net = small_network(dims, encoder=encoder, norm=norm, channels=3, classes=5)
    module, x = build(net, seed=0), example(dims, channels=3)
    outputs = module.train()(x)
    # Two levels: the coarser one teaches nothing.
    assert [tuple(o.shape) for o in outputs] == [(2, 5, *x.shape[2:])]
    assert tuple(module.eval()(x).shape) == (2, 5, *x.shape[2:])


def test_deeper_levels_have_heads():
    net = small_network(widths=(4, 8, 8, 8), strides=((2, 2, 2),) * 3, kernels=((3, 3, 3),) * 4)
    outputs = build(net, 0).train()(torch.randn(1, 1, 16, 16, 16))
    assert [o.shape[-1] for o in outputs] == [16, 8]


def test_low_precision_agrees_on_the_labels():
    module, x = build(small_network(), seed=1).eval(), example(3)
    with torch.inference_mode():
        full = module(x).softmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            low = module(x).float().softmax(1)
    assert (full - low).abs().max() < 0.06
    assert (full.argmax(1) == low.argmax(1)).float().mean() > 0.97


def test_foreign_weights_are_refused_or_taken_where_they_fit():
    wide = build(small_network(classes=7), 0)
    narrow = build(small_network(classes=3), 1)
    with pytest.raises(BundleError, match="heads"):
        load_weights(narrow, weights_of(wide))
    left = load_weights(narrow, weights_of(wide), strict=False)
    assert left == ["heads.0.weight", "heads.0.bias"]


def test_pooling_and_dropout_change_no_name():
    """So that bundles made before either was known load as they did."""
    names = set(weights_of(build(small_network(), 0)))
    assert {
        "encoder.0.0.0.weight",
        "encoder.2.1.1.bias",
        "up.1.bias",
        "decoder.0.1.0.weight",
        "heads.0.bias",
    } < names
    assert set(weights_of(build(small_network(down="pool", dropout=0.2), 0))) == names


@pytest.mark.parametrize("dims", [2, 3])
def test_dropout_spares_full_resolution(dims):
    """It stands once after each encoder stage but the first, and drops single values."""
    module = build(small_network(dims, dropout=0.5, activation="prelu"), 0).train()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    assert isinstance(module.dropout, nn.Dropout)
    module.dropout.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    module(example(dims))
    assert [tuple(out.shape[1:3]) for _, out in seen] == [(16, 8), (16, 4)]
    for before, after in seen:
        gone = after.eq(0) & before.ne(0)
        assert 0.3 < gone.float().mean() < 0.7 and not after.flatten(2).eq(0).all(-1).all()
        assert gone.any() and not gone.all() and torch.equal(after[~gone], 2 * before[~gone])


def test_instance_norm_is_the_library_s():
    x = torch.randn(3, 6, 5, 4, 3, requires_grad=True)
    mine = InstanceNorm(6)
    expected = torch.nn.functional.instance_norm(x, weight=mine.weight, bias=mine.bias)
    assert torch.allclose(mine(x), expected, atol=1e-5)


def test_batch_norm_is_the_library_s():
    x, mine, library = torch.randn(3, 6, 5, 4, 3), norm("batch", 6), nn.BatchNorm3d(6)
    for mode in (True, True, False):
        assert torch.equal(mine.train(mode)(x), library.train(mode)(x))
    assert {n: t.shape for n, t in mine.state_dict().items()} == {
        n: t.shape for n, t in library.state_dict().items()
    }


@pytest.mark.parametrize("kind", ["instance", "batch", "group"])
def test_one_value_passes_a_normalisation(kind):
    """It has no deviation, so neither is it lost, nor does training stop."""
    layer, x = norm(kind, 5).train(), torch.linspace(-2, 2, 5).view(1, 5, 1, 1)
    assert torch.allclose(layer(x), x, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "groups"), [(4, 4), (8, 8), (12, 6), (65, 5), (7, 7), (11, 1)]
)
def test_groups_divide_the_channels(channels, groups):
    assert norm("group", channels).num_groups == groups <= GROUPS


def test_group_norm_may_come_first():
    """Channels-last memory and an image that needs no gradient crashed the library's."""
    layer, x = norm("group", 2), torch.randn(2, 2, 24, 40).to(memory_format=torch.channels_last)
    layer(x).square().sum().backward()
    mine = layer.weight.grad.clone()
    layer.zero_grad()
    nn.functional.group_norm(x.contiguous(), 2, layer.weight, layer.bias).square().sum().backward()
    assert torch.allclose(mine, layer.weight.grad, rtol=1e-4)


@pytest.mark.parametrize("width", [3, 8])
def test_a_strided_shortcut_is_a_strided_convolution(width):
    """Written as a 1x1 convolution of the voxels that the stride keeps, which for fewer than 8
    channels the library survives.
    """
    net = small_network(2, encoder="residual")
    block = ResidualBlock(net, width, 12, (3, 3, 1), (2, 1, 1), 2)
    x = torch.randn(2, width, 20, 36).to(memory_format=torch.channels_last).requires_grad_()
    strided = ConvNormAct(net, width, 12, (1, 1, 1), (2, 1, 1), act=False)
    strided.load_state_dict(block.shortcut.state_dict())
    seen: list[torch.Tensor] = []
    block.shortcut.register_forward_hook(lambda *args: seen.append(args[2]))
    block(x).sum().backward()
    with torch.no_grad():
        assert torch.allclose(seen[0], strided(x), atol=1e-5)


def test_the_fast_dtype_exists_here():
    assert fast_dtype(torch.device("cpu")) in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (3, 1, 1),
        (3, 2, 1),
        ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        (1, 1, 0),
        (2, 2, 0),
        (5, 1, 2),
        (3, 1, 0),
    ],
)
@pytest.mark.parametrize("size", [(12, 9, 10), (7, 10, 9), (2, 5, 4)])
def test_a_single_small_sample_is_convolved_alike(kernel, stride, padding, size):
    """Forward and backward, with an even and an odd number of planes."""
    if padding == 0 and kernel == 3 and min(size) < 3:
        pytest.skip("smaller than the kernel")
    own, library = Conv3d(6, 10, kernel, stride, padding), nn.Conv3d(6, 10, kernel, stride, padding)
    library.load_state_dict(own.state_dict())
    x = torch.randn(1, 6, *size).contiguous(memory_format=memory_format(3))
    results = []
    for layer in (own, library):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(given)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        results.append((y, given.grad, layer.weight.grad, layer.bias.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert results[0][0].shape == results[1][0].shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (5, 2)])
@pytest.mark.parametrize("planes", range(1, 6))
def test_gradients_depend_on_no_memory_that_nobody_wrote(dtype, kernel, stride, planes):
    """Where the library has a kernel for the processor that reads such memory, it is filled."""
    layer = Conv3d(32, 32, kernel, stride, kernel // 2)
    x = torch.randn(2, 32, planes, 4, 4).contiguous(memory_format=memory_format(3))
    expected = nn.Conv3d(32, 32, kernel, stride, kernel // 2).double()
    expected.load_state_dict(layer.state_dict())
    y = expected(x.double())
    y.sin().sum().backward()
    for _ in range(6):
        filled = [torch.full_like(layer.weight, 1e4, dtype=one) for one in 3 * (x.dtype, dtype)]
        del filled
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = layer(x)
        found.float().sin().sum().backward()
        for mine, right in ((found, y), (layer.weight.grad, expected.weight.grad)):
            difference = (mine.double() - right).abs().max() / right.abs().max()
            assert difference < (1e-4 if dtype == torch.float32 else 0.05), difference


@pytest.mark.parametrize(("samples", "planes"), [(1, 16), (1, 100), (2, 16)])
def test_convolutions_take_the_fast_way(samples, planes):
    """``SMALL`` is the library's own limit: with it, no convolution goes the slow way."""
    x = torch.randn(samples, 8, planes, 30, 20).contiguous(memory_format=memory_format(3))
    assert (x.shape[1:-1].numel() <= SMALL) == (planes == 16)
    with torch.profiler.profile() as seen:
        Conv3d(8, 8, 3, padding=1)(x)
    names = {event.key for event in seen.key_averages()}
    assert "aten::mkldnn_convolution" in names and "aten::slow_conv3d_forward" not in names

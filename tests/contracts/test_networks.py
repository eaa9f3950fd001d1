"""What every network must satisfy, whatever its family: sizes, normalisations, precision, memory
formats, round trips, gradients, dropout.

All shapes are anisotropic and every network is narrow; the full settings only have their parameters
counted, without memory (meta tensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tests.plans import small_network
from torch import Tensor, nn

from delineate import extend
from delineate.core.plan import Network
from delineate.inference import openvino as compiled
from delineate.inference.engine import fast_dtype, traced_shape
from delineate.networks import quicknat
from delineate.networks.blocks import AveragePool
from delineate.networks.build import (
    build,
    filled,
    load_weights,
    memory_format,
    parameters,
    weights_of,
)
from delineate.networks.quicknat import QuickNAT
from delineate.networks.vnet import InputBlock

NORMS = ("instance", "batch", "group")
STRIDES_3D = ((2, 2, 1), (2, 2, 2), (1, 2, 2))  # divisor 4 8 4


def every(dims: int, stages: int, size: int) -> tuple[tuple[int, int, int], ...]:
    """``stages`` times the same kernel or stride along all axes of ``dims``."""
    return ((size, size, 1 if dims == 2 else size),) * stages


def net(dims: int, widths: tuple[int, ...], kernel: int = 3, **changes: object) -> Network:
    strides = every(2, len(widths) - 1, 2) if dims == 2 else STRIDES_3D[: len(widths) - 1]
    return small_network(
        dims,
        channels=2,
        widths=widths,
        strides=strides,
        **({"kernels": every(dims, len(widths), kernel)} | changes),
    )


NETWORKS: dict[str, Network] = {
    "unet 2-D": net(2, (6, 12, 12, 16)),
    "unet 3-D": net(3, (6, 12, 12, 16)),
    "unet 2-D residual, convs by stage": net(2, (6, 12, 12), encoder="residual", convs=(1, 2, 3)),
    "unet 3-D residual": net(3, (6, 12, 12), encoder="residual"),
    "unet 2-D resnet": net(2, (6, 12, 12), encoder="resnet", convs=(1, 2, 3), decoder_convs=1),
    "unet 3-D resnet": net(3, (6, 12, 12, 12), encoder="resnet", convs=2, decoder_convs=(2, 1, 1)),
    "unet 2-D pooled": net(2, (6, 12, 12), down="pool", activation="relu", deep_supervision=False),
    "unet 3-D pooled (light V-Net)": net(
        3, (6, 12, 12, 16), down="pool", activation="relu", deep_supervision=False
    ),
    "unet 3-D pooled residual": net(3, (6, 12, 12), down="pool", encoder="residual"),
    "denseunet-65 2-D": net(
        2, (6, 8, 8, 16, 16, 8), kind="denseunet", convs=(3, 4, 12, 8), growth=4, activation="relu"
    ),
    "denseunet-167 2-D": net(
        2,
        (6, 8, 8, 16, 16, 8),
        kind="denseunet",
        convs=(6, 12, 36, 24),
        growth=2,
        activation="relu",
    ),
    "denseunet 3-D, wide stem": net(
        3,
        (6, 8, 8, 8),
        kind="denseunet",
        convs=(2, 3),
        growth=4,
        kernels=(*every(3, 3, 3), (7, 7, 5)),
    ),
    "vnet 2-D": net(2, (6, 8, 12), 5, kind="vnet", convs=(1, 2, 3), activation="prelu"),
    "vnet 3-D": net(3, (6, 8, 12, 16), 5, kind="vnet", convs=(1, 2, 2, 2), activation="prelu"),
    **{
        f"quicknat {s}": net(2, (16, 16, 16, 16), 5, kind="quicknat", squeeze=s, activation="prelu")
        for s in ("none", "channel", "spatial", "both")
    },
}
# At least one of each family in every run of the tests; `make rounds` has all.
OFTEN = {
    "unet 2-D",
    "unet 3-D",
    "unet 3-D resnet",
    "unet 3-D pooled (light V-Net)",
    "denseunet 3-D, wide stem",
    "vnet 2-D",
    "quicknat both",
}
assert set(NETWORKS) >= OFTEN


def some(names: Iterable[str]) -> list[Any]:
    """The names as parameters; those that are not in ``OFTEN`` only for `make rounds`."""
    return [pytest.param(n, marks=() if n in OFTEN else pytest.mark.rounds) for n in names]


each_network = pytest.mark.parametrize("name", some(NETWORKS))
# Every network with the usual norm, and every norm with one network of each family.
FAMILIES = {"unet 3-D resnet", "denseunet 3-D, wide stem", "vnet 2-D", "quicknat both"}
each_network_and_norm = pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(
            name,
            norm,
            marks=()
            if name in OFTEN and (norm == "instance" or name in FAMILIES)
            else pytest.mark.rounds,
        )
        for name in NETWORKS
        for norm in NORMS
    ],
)


def changed(given: Network, **changes: object) -> Network:
    return Network(**{**given.model_dump(), **changes})


def example(
    given: Network, batch: int = 2, wanted: tuple[int, int, int] = (19, 35, 7), seed: int = 0
) -> Tensor:
    """An image of at least ``wanted`` voxels, padded to the divisor as inference does, in the
    build's memory format.
    """
    size = [-(-n // d) * d for n, d in zip(wanted, given.divisor, strict=True)][: given.dims]
    x = torch.randn(batch, given.channels, *size, generator=torch.Generator().manual_seed(seed))
    return x.to(memory_format=memory_format(given.dims))


def logits(output: Tensor | list[Tensor]) -> Tensor:
    return output[0] if isinstance(output, list) else output


def devices() -> Iterator[str]:
    yield "cpu"
    if torch.cuda.is_available():
        yield "cuda"


@each_network_and_norm
@pytest.mark.parametrize("device", devices())
def test_logits_have_the_size_of_the_image(name, norm, device):
    given = changed(NETWORKS[name], norm=norm)
    module, x = build(given, seed=0).to(device), example(given).to(device)
    with torch.no_grad():
        for mode in (True, False):
            out = logits(module.train(mode)(x))
            assert (
                tuple(out.shape) == (2, 3, *x.shape[2:]) and out.isfinite().all() and out.std() > 0
            )


@each_network_and_norm
def test_low_precision_is_close(name, norm):
    given = changed(NETWORKS[name], norm=norm)
    module, x = build(given, seed=1).train(), example(given)
    with torch.no_grad():
        full = logits(module(x))
        with torch.autocast("cpu", torch.bfloat16):
            low = logits(module(x))
    error = (low.float() - full).square().mean().sqrt() / full.std()
    # bf16 has 8 bits, some of which a hundred layers lose; a maximum that moves to its neighbour
    # moves what QuickNAT unpools
    assert 0 < error < (0.3 if given.kind == "quicknat" else 0.1)


@each_network_and_norm
def test_it_never_waits_for_its_device(name, norm):
    """The meta device has no values: whatever asks for one raises, and so does what mixes it with
    the CPU. A GPU would stand idle there.
    """
    given = changed(NETWORKS[name], norm=norm)
    module, x = build(given, seed=0).train().to("meta"), example(given).to("meta")
    logits(module(x)).sum().backward()
    first = next(module.parameters()).grad
    assert first is not None and first.device.type == "meta"


@each_network
def test_memory_format_does_not_matter(name):
    given = NETWORKS[name]
    module, x = build(given, seed=2).eval(), example(given)
    plain = x.contiguous()
    assert not x.is_contiguous()
    with torch.no_grad():
        assert torch.allclose(module(x), module(plain), atol=1e-4, rtol=1e-4)


@each_network_and_norm
def test_weights_round_trip_with_buffers(name, norm):
    given = changed(NETWORKS[name], norm=norm)
    first, second, x = build(given, seed=0), build(given, seed=9), example(given)
    with torch.no_grad():
        first.train()(x + 1)  # running statistics move
        first.eval(), second.eval()
        assert not torch.equal(first(x), second(x))
        assert load_weights(second, weights_of(first)) == []
        assert torch.equal(first(x), second(x))


@each_network
def test_a_seed_fixes_the_weights(name):
    first, same, other = (weights_of(build(NETWORKS[name], seed)) for seed in (4, 4, 5))
    assert list(first) == list(same) and all(np.array_equal(first[n], same[n]) for n in first)
    assert any(not np.array_equal(first[n], other[n]) for n in first)


@each_network_and_norm
def test_every_parameter_gets_a_gradient(name, norm):
    given = changed(NETWORKS[name], norm=norm)
    module, x = build(given, seed=3).train(), example(given)
    outputs = module(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(
        (o * torch.randn(o.shape, generator=torch.Generator().manual_seed(1))).sum()
        for o in outputs
    ).backward()
    without = [
        n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert not without


@each_network
def test_dropout_acts_only_when_told(name):
    given = changed(NETWORKS[name], dropout=0.3, norm="group")
    module, x = build(given, seed=0), example(given)
    with torch.no_grad():
        module.eval()
        assert torch.equal(module(x), module(x))
        layers = [m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        assert layers
        for layer in layers:  # Monte-Carlo samples: only the dropout is in training mode
            layer.train()
        samples = torch.stack([module(x) for _ in range(4)])
    spread = samples.std(0).mean() / samples.std()
    assert spread > 0.05
    assert (
        weights_of(build(changed(NETWORKS[name], dropout=0.0), 0)).keys()
        == weights_of(module).keys()
    )


@each_network_and_norm
def test_one_voxel_is_left_at_the_bottom_of_one_sample(name, norm):
    given = changed(NETWORKS[name], norm=norm)
    module, x = build(given, seed=0).train(), example(given, batch=1, wanted=(1, 1, 1))
    out = logits(module(x))
    out.square().mean().backward()
    assert tuple(out.shape[2:]) == given.divisor[: given.dims] and out.isfinite().all()


@each_network
def test_a_plan_keeps_it(name):
    given = NETWORKS[name]
    assert Network.model_validate_json(json.dumps(given.model_dump(mode="json"))) == given


@pytest.mark.parametrize(
    "name",
    some(next(n for n in NETWORKS if n.startswith(family)) for family in Network.OWN_KINDS),
)
def test_it_learns(name):
    """Voxels above the mean of their neighbourhood are found after a few steps on one image."""
    given = changed(NETWORKS[name], norm="batch", classes=2)
    module, x = build(given, seed=0).train(), example(given, wanted=(32, 24, 1))
    target = nn.functional.avg_pool2d(x[:, 0], 5, 1, 2).gt(0).long()
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(logits(module(x)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_average_pool_is_the_library_s():
    x = torch.randn(2, 3, 6, 8, 4).to(memory_format=torch.channels_last_3d)
    assert torch.allclose(
        AveragePool((3, 2, 1))(x), nn.functional.avg_pool3d(x, (3, 2, 1)), atol=1e-6
    )
    assert AveragePool((2, 2, 2))(x.bfloat16()).dtype == torch.bfloat16


def test_values_go_back_where_they_came_from():
    """What QuickNAT unpools lies where the encoder's maximum was, in low precision and
    channels-last memory as well.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    module = build(NETWORKS["quicknat none"], 0).eval()
    assert isinstance(module, QuickNAT)
    for decode in module.decoder:
        decode.register_forward_pre_hook(
            lambda _, args: seen.append(torch.tensor_split(args[0], 2, dim=1))
        )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        module(example(NETWORKS["quicknat none"]))
    assert len(seen) == 3
    for skip, unpooled in seen:
        largest = skip == nn.functional.interpolate(
            nn.functional.max_pool2d(skip, 2), scale_factor=2
        )
        assert (unpooled != 0).float().mean() > 0.2
        assert not (unpooled[~largest] != 0).any()


def test_excitation_both_is_the_larger_of_the_two():
    from delineate.networks.quicknat import BothExcitations

    torch.manual_seed(0)
    both, x = BothExcitations(4), torch.randn(2, 4, 3, 5)
    channel, spatial = both.channel(x), both.spatial(x)
    assert torch.equal(both(x), torch.where(channel > spatial, channel, spatial))
    assert torch.allclose(channel / x, (channel / x)[:, :, :1, :1].expand_as(x)) and torch.allclose(
        spatial / x, (spatial / x)[:, :1].expand_as(x)
    )


def test_the_first_stage_of_a_v_net_adds_the_image():
    given = net(3, (5, 8), 5, kind="vnet", convs=1, activation="prelu")
    entry, x = InputBlock(given), torch.rand(1, 2, 4, 6, 8)
    nn.init.zeros_(entry.convs[0][0].weight)
    assert torch.allclose(entry(x), x[:, [0, 1, 0, 1, 0]], atol=1e-5)


def test_a_pooled_stage_sees_maxima():
    module = build(NETWORKS["unet 3-D pooled (light V-Net)"], 0).eval()
    seen: list[Tensor] = []
    module.encoder[0].register_forward_hook(lambda *args: seen.append(args[2]))
    module.encoder[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        module(example(NETWORKS["unet 3-D pooled (light V-Net)"]))
    assert torch.equal(seen[1], nn.functional.max_pool3d(seen[0], (2, 2, 1)))


# ---- the full settings, counted ----


def classic(dims: int, widths: tuple[int, ...], channels: int, classes: int) -> Network:
    return small_network(
        dims,
        channels=channels,
        classes=classes,
        widths=widths,
        strides=every(dims, len(widths) - 1, 2),
        kernels=every(dims, len(widths), 3),
        down="pool",
        norm="batch",
        activation="relu",
        deep_supervision=False,
    )


def dense(
    convs: tuple[int, ...],
    growth: int,
    widths: tuple[int, ...],
    channels: int = 3,
    classes: int = 3,
) -> Network:
    return small_network(
        2,
        kind="denseunet",
        channels=channels,
        classes=classes,
        widths=widths,
        strides=every(2, 5, 2),
        kernels=(*every(2, 5, 3), (7, 7, 1)),
        convs=convs,
        growth=growth,
        norm="batch",
        activation="relu",
    )


def without_memory(given: Network) -> nn.Module:
    with torch.device("meta"):
        return extend.NETWORKS[given.kind].build(given)


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())


def test_u_net_has_the_stated_parameters():
    """31,037,698: what the common implementation (milesial/Pytorch-UNet, transposed convolutions, 3
    channels, 2 classes) reports; 23 convolutions are what Ronneberger 2015 counts."""
    module = without_memory(classic(2, (64, 128, 256, 512, 1024), 3, 2))
    assert parameters(module) == 31_037_698
    assert convolutions(module) == 23


def test_denseunet_167_has_the_stated_parameters_and_layers():
    """DenseNet-161 has 28,681,000 (torchvision), of which 2208 x 1000 + 1000 classify; Li 2018
    counts 167 layers; a published port of the 2-D network (xmengli999/TCSM) has 49.5 M with
    everything."""
    module = without_memory(dense((6, 12, 36, 24), 48, (64, 96, 96, 384, 768, 96)))
    decoder = sum(parameters(m) for m in (module.project, module.decoder, module.head))
    assert parameters(module) - decoder == 28_681_000 - 2_209_000
    assert (
        decoder
        == 2112 * 2208
        + 2208
        + 9 * (2208 * 768 + 768 * 384 + 384 * 96 + 96 * 96 + 96 * 64)
        + 2 * (768 + 384 + 96 + 96 + 64)
        + 64 * 3
        + 3
    )
    assert round(parameters(module) / 1e6, 1) == 49.5
    assert convolutions(module) == 167


def test_denseunet_65_has_the_stated_layers():
    """Li 2018 counts 65 with one projected skip; the other three that do not fit are projected here
    as well.
    """
    module = without_memory(dense((3, 4, 12, 8), 32, (64, 96, 192, 224, 504, 96)))
    assert convolutions(module) == 65 + 3
    assert [m.out_channels for m in module.project] == [192, 224, 504, 504]
    # The widths in the authors' code.
    assert [block.width for block in module.blocks] == [
        192,
        224,
        496,
        504,
    ]
    assert 6.4e6 < parameters(module) < 6.5e6


def v_net_weights(
    down: tuple[int, ...], up: tuple[int, ...], widths: tuple[int, ...] = (16, 32, 64, 128, 256)
) -> int:
    """Weights of a V-Net's convolutions for one channel and two classes, summed from figure 2 of
    Milletari 2016.
    """
    encoder = 125 * widths[0] + sum(
        125 * n * w * w for n, w in zip(down[1:], widths[1:], strict=True)
    )
    decoder = sum(125 * n * (2 * w) ** 2 for n, w in zip(up, widths[:-1], strict=True))
    between = sum(8 * a * b for a, b in pairwise(widths))
    upward = sum(
        8 * a * b
        for a, b in zip([2 * w for w in widths[1:-1]] + [widths[-1]], widths, strict=False)
    )
    return encoder + decoder + between + upward + 2 * widths[0] * 2


def test_v_net_has_the_parameters_of_its_figure():
    """The paper states none. The sum by hand gives the 45 M that MedicalZooPytorch and MONAI state
    for their variant with fewer convolutions (1, 1, 2, 3, 2 down and 1, 1, 2, 2 up), so it is
    trusted for the paper's own 1, 2, 3, 3, 3 and 1, 2, 3, 3."""
    assert 45.3e6 < v_net_weights((1, 1, 2, 3, 2), (1, 1, 2, 2)) < 45.7e6
    given = small_network(
        3,
        kind="vnet",
        classes=2,
        widths=(16, 32, 64, 128, 256),
        strides=every(3, 4, 2),
        kernels=every(3, 5, 5),
        convs=(1, 2, 3, 3, 3),
        norm="batch",
        activation="prelu",
    )
    module = without_memory(given)
    weights = sum(
        m.weight.numel() for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)
    )
    assert weights == v_net_weights((1, 2, 3, 3, 3), (1, 2, 3, 3))
    assert 65.1e6 < parameters(module) < 65.3e6


def test_quicknat_has_the_parameters_of_the_reference():
    """3,516,971: the authors' code (ai-med/quickNAT_pytorch, 28 classes, no excitation), summed
    layer by layer; ours lacks its nine shared PReLU slopes and the biases of 27 convolutions of 64,
    which the normalisation takes away."""

    def reference(channels: int) -> int:
        inputs = (channels, channels + 64, channels + 128)
        return sum(64 * c * k + 64 + 2 * c for c, k in zip(inputs, (25, 25, 1), strict=True)) + 1

    assert reference(1) + 4 * reference(64) + 4 * reference(128) + 64 * 28 + 28 == 3_516_971
    setting = {
        "kind": "quicknat",
        "classes": 28,
        "widths": (64,) * 5,
        "strides": every(2, 4, 2),
        "kernels": every(2, 5, 5),
        "norm": "batch",
        "dropout": 0.2,
    }
    assert (
        parameters(without_memory(small_network(2, activation="relu", **setting)))
        == 3_516_971 - 9 - 27 * 64
    )
    # CsSE of 64 feature maps, in four encoders and four decoders.
    extra = 64 * 32 + 32 + 32 * 64 + 64 + 64 + 1
    assert (
        parameters(without_memory(small_network(2, activation="relu", squeeze="both", **setting)))
        == 3_516_971 - 9 - 27 * 64 + 8 * extra
    )


# ---- what a plan may not say ----


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"growth": 16}, "has no growth"),
        ({"squeeze": "both"}, "has no squeeze"),
        ({"kind": "vnet", "encoder": "residual"}, "has no encoder"),
        ({"kind": "vnet", "down": "pool"}, "has no down"),
        ({"kind": "vnet", "deep_supervision": True}, "has no deep_supervision"),
        (
            {
                "kind": "denseunet",
                "widths": (8, 8, 8, 8),
                "strides": every(2, 3, 2),
                "kernels": every(2, 4, 3),
                "squeeze": "channel",
            },
            "has no squeeze",
        ),
        ({"kind": "denseunet"}, "at least 4 widths"),
        (
            {
                "kind": "denseunet",
                "widths": (8, 8, 8, 8),
                "strides": every(2, 3, 2),
                "kernels": every(2, 4, 3),
                "convs": (2, 2, 2),
            },
            "2 dense blocks",
        ),
        ({"kind": "quicknat"}, "widths must be equal"),
        ({"kind": "quicknat", "widths": (8, 8, 8), "dims": 3}, "2-D network"),
        ({"convs": (2, 2)}, "3 stages"),
        ({"kernels": every(2, 3, 4)}, "odd"),
        ({"strides": ((2, 2, 1), (0, 2, 1))}, "1 or more"),
    ],
)
def test_a_network_says_only_what_happens(changes, why):
    with pytest.raises(ValueError, match=why):
        small_network(**{"dims": 2, **changes})


# ---- compiled for a CPU ----

CLOSE = 1e-3  # in float32, of every logit, in standard deviations of the logits
# In bfloat16, root mean square; a hundred layers and unpooling lose more.
ROUGH = {
    "unet": 0.05,
    "vnet": 0.05,
    "denseunet": 0.2,
    "quicknat": 0.2,
}
needs_openvino = pytest.mark.skipif(
    not compiled.available(), reason="OpenVINO is not installed, or not made for this processor"
)


@needs_openvino
@each_network
def test_a_compiled_network_gives_the_same_logits(name):
    """Every family, also in half precision where the processor has units for it; what OpenVINO does
    not know would be None.
    """
    given = NETWORKS[name]
    weights, x = weights_of(build(given, seed=0)), example(given, batch=3)
    with torch.inference_mode():
        expected = filled(given, weights)(x).float()
    for dtype in dict.fromkeys((torch.float32, fast_dtype(torch.device("cpu")))):
        graph = compiled.compiled(lambda: filled(given, weights), tuple(x.shape[1:]), dtype)
        assert graph is not None
        out = graph(x)
        assert out.dtype == torch.float32 and out.shape == expected.shape
        error = (out - expected).abs() / expected.std()
        assert (
            error.max() < CLOSE
            if dtype == torch.float32
            else 0 < error.square().mean().sqrt() < ROUGH[given.kind]
        )
        # A window's logits do not depend on its companions.
        assert torch.equal(graph(x[1:2]), out[1:2])


@needs_openvino
@each_network
def test_a_network_traced_with_a_small_window_gives_the_same_logits(name, monkeypatch):
    """Bit by bit, and without a second trace."""
    given = NETWORKS[name]
    patch = tuple(d * n if d > 1 else 1 for d, n in zip(given.divisor, (3, 4, 5), strict=True))
    monkeypatch.setattr("delineate.inference.engine.LEAST_TRACED", 1)
    small = traced_shape(given, patch)
    x = torch.randn(1, given.channels, *patch[: given.dims])
    weights, traces = weights_of(build(given, seed=0)), []
    trace = torch.jit.trace
    monkeypatch.setattr(
        torch.jit,
        "trace",
        lambda m, x, **how: traces.append(tuple(x.shape[1:])) or trace(m, x, **how),
    )
    found = [
        compiled.compiled(
            lambda: filled(given, weights), tuple(x.shape[1:]), torch.float32, traced=traced
        )
        for traced in ((), small)
    ]
    assert traces == [tuple(x.shape[1:]), small] and small != tuple(x.shape[1:])
    whole, part = (graph(x) for graph in found if graph is not None)
    assert torch.equal(whole, part)


@needs_openvino
@pytest.mark.parametrize("norm", NORMS)
def test_every_normalisation_compiles(norm):
    given = changed(NETWORKS["unet 3-D"], norm=norm)
    weights, x = weights_of(build(given, seed=1)), example(given)
    graph = compiled.compiled(lambda: filled(given, weights), tuple(x.shape[1:]), torch.float32)
    with torch.inference_mode():
        expected = filled(given, weights)(x)
    assert graph is not None and (graph(x) - expected).abs().max() < 1e-4 * expected.std()


def test_traced_unpooling_takes_the_first_of_equal_values():
    x = torch.randint(0, 3, (2, 4, 12, 8), generator=torch.Generator().manual_seed(0)).float()

    def there_and_back(image: Tensor) -> Tensor:
        pooled, places = quicknat._pooled(image, (2, 4))
        return quicknat._unpooled(pooled, places, image, (2, 4))

    assert torch.equal(torch.jit.trace(there_and_back, x)(x), there_and_back(x))

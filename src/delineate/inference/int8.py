"""INT8 inference (optional): convolutions in 8-bit integers, faster on processors with hardware for
them. The loss of accuracy is measured before INT8 is offered.

A convolution's input is rounded to 256 levels between two bounds. Its weights are rounded to 255
levels for each output feature map (Jacob 2018), or to 127 if the processor's sums would overflow.
Norms, activations, additions and transposed convolutions are not rounded. Nor are the convolutions
that read the image or produce the logits: they are few operations, and accuracy depends on them
most. The bounds are the same for all scans. They are found on some scans of the same kind: from the
inputs of a layer on those, the bounds with the least squared error of rounding and clipping. A
bundle stores them with a member's weights; they have no effect unless INT8 is requested.

torch computes with the rounded numbers in floats; OpenVINO turns them into integers (see
``openvino``). Shapes: x (B, C, *size); bounds (2,). It knows no scan and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

STEPS = 255  # between 256 levels
FEW_INPUTS, FEW_OUTPUTS = 16, 8  # a convolution with fewer channels gains nothing
HEADS = ("head", "heads")
# Multiplications of a window in layers that can be rounded. With fewer, a processor computes it in
# a tenth of a second, and gains nothing worth a different mask.
FEWEST_OPERATIONS = 2e10
DRAWN = 2**13  # values of a layer's input that are sampled from one window
SHARES = np.linspace(0.2, 1, 41)  # fractions of the values' range that are tried as bounds

Bounds = dict[str, NDArray[np.float32]]


class QuantisedConvolution(nn.Module):
    """A convolution whose inputs and weights are rounded to 8 bits; ``low`` and ``high`` are the
    bounds of the inputs.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, low: float, high: float):
        super().__init__()
        self.convolution = convolution
        # One scale for each output feature map, from its largest weight.
        largest = convolution.weight.detach().float().abs().flatten(1).amax(1).clamp_min(1e-12)
        self.register_buffer(
            "scales", largest / (STEPS // 2 if adds_in_32_bits() else STEPS // 4), persistent=False
        )
        self.register_buffer(
            "zeros", torch.zeros(len(largest), dtype=torch.int32), persistent=False
        )
        self.scale, self.zero = _steps(low, high)

    def forward(self, x: Tensor) -> Tensor:
        # torch rounds in floats; OpenVINO recognises these operations and computes in integers.
        own = self.convolution
        x = torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero, 0, STEPS)
        weight = torch.fake_quantize_per_channel_affine(
            own.weight,
            self.scales,  # type: ignore[arg-type]
            self.zeros,  # type: ignore[arg-type]
            0,
            -(STEPS // 2),
            STEPS // 2,
        )
        convolve = functional.conv2d if own.weight.ndim == 4 else functional.conv3d
        return convolve(x, weight, own.bias, own.stride, own.padding, own.dilation, own.groups)


def adds_in_32_bits() -> bool:
    """Whether the processor adds products of 8-bit numbers in 32 bits (VNNI).

    Other processors add pairs of products in 16 bits, which overflows unless the weights have one
    bit less.
    """
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        has.get("avx512_vnni")
        or has.get("avx_vnni")
        or getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    )


def _steps(low: float, high: float) -> tuple[float, int]:
    """(step size, index of the level that is 0) of 256 levels from ``low`` to ``high``. 0 is always
    a level, so that padding stays exactly 0.
    """
    scale = max(max(high, 0.0) - min(low, 0.0), 1e-12) / STEPS
    return scale, min(STEPS, round(-min(low, 0.0) / scale))


def candidates(module: nn.Module) -> dict[str, nn.Conv2d | nn.Conv3d]:
    """The convolutions of a network that can be rounded, by name."""
    # All convolutions but the heads; transposed ones are other classes.
    found = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Conv3d) and name.split(".")[0] not in HEADS
    }
    # Those with few input channels include the ones that read the image.
    return {
        name: part
        for name, part in found.items()
        if part.in_channels >= FEW_INPUTS and part.out_channels >= FEW_OUTPUTS
    }


@torch.inference_mode()
def operations(module: nn.Module, x: Tensor) -> int:
    """The multiplications of the layers that can be rounded, of one pass of ``x``."""
    total = 0

    def count(layer: nn.Conv2d | nn.Conv3d, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        each = layer.weight[0].numel()
        total += output.numel() * each

    handles = [layer.register_forward_hook(count) for layer in candidates(module).values()]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
    return total


def rounded(module: nn.Module, bounds: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Replace the layers that have ``bounds`` by rounded ones, in place, and return the module.

    Raises:
        ValueError: a layer that cannot be rounded.
    """
    known = candidates(module)
    if strange := sorted(set(bounds) - set(known)):
        raise ValueError(
            f"bounds for {', '.join(strange[:3])}, which is not a convolution that can be rounded"
        )
    # Put a rounded layer in place of each.
    for name, (low, high) in bounds.items():
        owner, _, last = name.rpartition(".")
        setattr(
            module.get_submodule(owner),
            last,
            QuantisedConvolution(known[name], float(low), float(high)),
        )
    return module


class RangeObserver:
    """Samples the inputs of a module's convolutions while it is used inside a ``with`` block."""

    def __init__(self, module: nn.Module, seed: int = 0):
        self._layers = candidates(module)
        self._draws = torch.Generator().manual_seed(seed)
        self._seen: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        self._handles: list[Any] = []

    def __enter__(self) -> RangeObserver:
        for name, layer in self._layers.items():
            self._handles.append(
                layer.register_forward_pre_hook(
                    lambda layer, inputs, name=name: self._observe(name, inputs[0])
                )
            )
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _observe(self, name: str, x: Tensor) -> None:
        if x.shape[2:].numel() == 1:
            return  # one value per channel, as in channel excitation: rounding gains nothing
        # A random sample of the values is enough to find the bounds.
        flat = x.detach().float().cpu().flatten()
        self._seen[name].append(
            flat[torch.randint(len(flat), (min(len(flat), DRAWN),), generator=self._draws)]
        )

    def bounds(self) -> Bounds:
        """Lower and upper bound (2,) float32 by layer name; without layers that had no input, or
        only single voxels.
        """
        return {
            name: _best(torch.cat(values).numpy()) for name, values in self._seen.items() if values
        }


def _best(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2,) the bounds with the least squared error; the upper bound is searched first."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)

    def error(low: float, high: float) -> float:
        # Round and clip the values as the layer does.
        scale, zero = _steps(low, high)
        found = (np.clip(np.rint(values / scale) + zero, 0, STEPS) - zero) * scale
        return float(np.mean(np.square(found - values)))

    # The lower bound is 0 after a ReLU; then only the upper one matters.
    high = min((high * share for share in SHARES), key=lambda tried: error(low, tried))
    low = min((low * share for share in SHARES), key=lambda tried: error(tried, high))
    return np.array([low, high], dtype=np.float32)

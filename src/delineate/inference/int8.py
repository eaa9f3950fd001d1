"""Networks in 8-bit integers (optional): faster on a processor with units for them, at a
cost that is measured before it is offered.

A convolution's input is rounded to 256 steps between two bounds, its weights to 255 steps for each
feature map that it makes (Jacob 2018), to 127 where the processor's sums would overflow. Norms,
activations, sums and transposed convolutions stay as they were, and so do the convolutions that
read the image or make the logits: few operations, on which much depends. The bounds hold for all
scans and are found on some of the kind: of what a layer was shown there, those with the least
squared error of rounding and cutting off. A bundle keeps them beside a member's weights; they say
nothing unless 8 bits are asked for.

torch computes with the rounded numbers in floats, of which OpenVINO makes integers (see
``compiled``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

STEPS = 255
FEW_INPUTS, FEW_OUTPUTS = 16, 8  # a convolution of fewer feature maps gains nothing
HEADS = ("head", "heads")
DRAWN = 2**13  # values of a layer's input that are kept of one window
SHARES = np.linspace(0.2, 1, 41)  # of the values' whole range, tried as bounds

Bounds = dict[str, NDArray[np.float32]]


class QuantisedConvolution(nn.Module):
    """A convolution of inputs and weights that are rounded to 8 bits; ``low`` and ``high`` bound
    the inputs.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, low: float, high: float):
        super().__init__()
        self.convolution = convolution
        largest = convolution.weight.detach().float().abs().flatten(1).amax(1).clamp_min(1e-12)
        self.register_buffer(
            "scales", largest / (STEPS // 2 if adds_in_32_bits() else STEPS // 4), persistent=False
        )
        self.register_buffer(
            "zeros", torch.zeros(len(largest), dtype=torch.int32), persistent=False
        )
        self.scale, self.zero = _steps(low, high)

    def forward(self, x: Tensor) -> Tensor:
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
    """Whether the processor adds products of 8-bit numbers in 32 bits (VNNI); others add pairs in
    16, too few unless weights have one bit less.
    """
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        told.get("avx512_vnni")
        or told.get("avx_vnni")
        or getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    )


def _steps(low: float, high: float) -> tuple[float, int]:
    """(size of a step, which step is 0) of 256 steps from ``low`` to ``high``; 0 is one of them, so
    that what pads an image stays nothing.
    """
    scale = max(max(high, 0.0) - min(low, 0.0), 1e-12) / STEPS
    return scale, min(STEPS, round(-min(low, 0.0) / scale))


def candidates(module: nn.Module) -> dict[str, nn.Conv2d | nn.Conv3d]:
    """The convolutions of a network that may be rounded, by name."""
    found = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Conv3d) and name.split(".")[0] not in HEADS
    }
    return {
        name: part
        for name, part in found.items()
        if part.in_channels >= FEW_INPUTS and part.out_channels >= FEW_OUTPUTS
    }


def rounded(module: nn.Module, bounds: Mapping[str, NDArray[Any]]) -> nn.Module:
    """The module with the layers of ``bounds`` rounded between them, changed in place.

    Raises:
        ValueError: a layer that may not be rounded.
    """
    known = candidates(module)
    if strange := sorted(set(bounds) - set(known)):
        raise ValueError(
            f"bounds of {', '.join(strange[:3])}, which is no convolution that can be rounded"
        )
    for name, (low, high) in bounds.items():
        owner, _, last = name.rpartition(".")
        setattr(
            module.get_submodule(owner),
            last,
            QuantisedConvolution(known[name], float(low), float(high)),
        )
    return module


class RangeObserver:
    """Looks at what the convolutions of a module are shown while it is used inside a ``with``."""

    def __init__(self, module: nn.Module, seed: int = 0):
        self._layers = candidates(module)
        self._draws = torch.Generator().manual_seed(seed)
        self._seen: dict[str, list[Tensor]] = {name: [] for name in self._layers}
        self._handles: list[Any] = []

    def __enter__(self) -> RangeObserver:
        for name, layer in self._layers.items():
            self._handles.append(
                layer.register_forward_pre_hook(
                    lambda layer, inputs, name=name: self._look(name, inputs[0])
                )
            )
        return self

    def __exit__(self, *raised: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _look(self, name: str, x: Tensor) -> None:
        if x.shape[2:].numel() == 1:
            return  # weights of feature maps, not feature maps: nothing to gain
        flat = x.detach().float().cpu().flatten()
        self._seen[name].append(
            flat[torch.randint(len(flat), (min(len(flat), DRAWN),), generator=self._draws)]
        )

    def bounds(self) -> Bounds:
        """(2,) float32 lower and upper bound by the layer's name; layers that saw nothing, or
        single voxels only, are left out.
        """
        return {
            name: _best(torch.cat(values).numpy()) for name, values in self._seen.items() if values
        }


def _best(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2,) the bounds with the least squared error, the upper one looked for first."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)

    def error(low: float, high: float) -> float:
        scale, zero = _steps(low, high)
        found = (np.clip(np.rint(values / scale) + zero, 0, STEPS) - zero) * scale
        return float(np.mean(np.square(found - values)))

    high = min((high * share for share in SHARES), key=lambda tried: error(low, tried))
    low = min((low * share for share in SHARES), key=lambda tried: error(tried, high))
    return np.array([low, high], dtype=np.float32)

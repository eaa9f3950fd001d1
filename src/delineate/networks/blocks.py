"""The bricks that the networks share, for 2-D and 3-D alike.

Shapes: x (B, C, I, J, K) in 3-D, (B, C, I, J) in 2-D. Kernels and strides come as triples and lose
their last entry in 2-D. Nothing here knows a plan's other parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.plan import Network

GROUPS = 8
EPSILON = 1e-5
SMALL = 20480  # values of a sample of which torch makes fast convolutions only together with others


def tracing() -> bool:
    """Whether the network is being read for a compiler, which knows the plain layers better than
    torch's own faster ways round them.
    """
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class InstanceNorm(nn.Module):
    """Zero mean and unit deviation of every channel of every sample (Ulyanov 2016), then a learnt
    scale and shift.

    A leaky ReLU of ``slope`` may follow in the same operation; 1 is none. Training on a CPU goes
    through ``fused``. Elsewhere on a CPU it is batch norm over one sample at a time: the same
    numbers, but the library's batch norm keeps channels-last memory and bf16 as they are, where its
    instance norm copies to another layout.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, slope: float = 1.0) -> Tensor:
        if x.shape[2:].numel() > 1 and torch.is_grad_enabled() and not tracing():
            from . import fused  # loads a compiler, which predicting does without

            if fused.fits(x):
                return fused.norm_act(x, self.weight, self.bias, slope, EPSILON)
        y = self._norm(x)
        return y if slope == 1 else functional.leaky_relu(y, slope, inplace=True)

    def _norm(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            return _scaled(x, self.weight, self.bias)
        if x.device.type != "cpu" or tracing():
            return functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=EPSILON)
        samples = [
            functional.batch_norm(
                one, None, None, self.weight, self.bias, training=True, eps=EPSILON
            )
            for one in torch.split(x, 1)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


def _scaled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What is left of a normalisation where one value has no deviation: it passes, scaled and
    shifted.
    """
    each = (-1, *(1 for _ in x.shape[2:]))
    return x * weight.view(each) + bias.view(each)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """The library's batch norm (Ioffe 2015) for 2-D and 3-D; one value a channel, which has no
    deviation, is normalised by the running statistics.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] * x.shape[2:].numel() > 1:
            return super().forward(x)
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )


class GroupNorm(nn.GroupNorm):
    """The library's group norm (Wu 2018), which may also come first, on the image itself."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1 and self.num_groups == self.num_channels:
            return _scaled(x, self.weight, self.bias)
        if torch.is_grad_enabled() and not x.requires_grad:
            # its backward pass on channels-last memory needs a gradient of x to write to, or
            # crashes (torch 2.13, CPU)
            x = x.contiguous()
        return super().forward(x)


class AveragePool(nn.Module):
    """Means over boxes of ``step`` voxels, side by side.

    On a CPU the library's 3-D version knows no bf16 and leaves channels-last memory; its 2-D
    version, first over J and K, then over I, does both.
    """

    def __init__(self, step: Sequence[int]):
        super().__init__()
        self.step = tuple(step)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.step) == 2:
            return functional.avg_pool2d(x, self.step)
        if x.device.type != "cpu" or tracing():
            return functional.avg_pool3d(x, self.step)
        b, c, i = x.shape[:3]
        # (B I, C, J', K')
        slices = functional.avg_pool2d(x.transpose(1, 2).flatten(0, 1), self.step[1:])
        columns = slices.reshape(b, i, c, -1).transpose(1, 2)  # (B, C, I, J' K')
        return functional.avg_pool2d(columns, (self.step[0], 1)).reshape(
            b, c, -1, *slices.shape[2:]
        )


class Conv3d(nn.Conv3d):
    """The library's 3-D convolution, and as fast for a single small sample as for several.

    In float32 on a CPU the library takes its fast way only for several samples, or for more than
    ``SMALL`` values in all planes but the last axis (torch 2.13, ``use_mkldnn``); the slow one
    takes three to ten times as long, on one core. So a single small sample goes as two: its halves
    along the first axis.
    """

    def forward(self, x: Tensor) -> Tensor:
        slow = (
            x.shape[0] == 1
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.shape[1:-1].numel() <= SMALL
        )
        if not slow or tracing() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        kernel, stride, reach = (int(n[0]) for n in (self.kernel_size, self.stride, self.padding))
        planes = (x.shape[2] + 2 * reach - kernel) // stride + 1  # of the result
        if planes < 2:
            return super().forward(x)
        half = -(-planes // 2)  # of an odd number the middle plane is computed twice
        begins, deep = (planes - half) * stride, (half - 1) * stride + kernel
        padded = functional.pad(x, (0, 0, 0, 0, reach, reach))
        halves = torch.cat([padded[:, :, :deep], padded[:, :, begins : begins + deep]])
        y = functional.conv3d(halves, self.weight, self.bias, self.stride, (0, *self.padding[1:]))
        if 2 * half == planes:  # of channels-last memory a view
            return y.movedim(1, -1).flatten(0, 1)[None].movedim(-1, 1)
        return torch.cat([y[:1], y[1:, :, 1:]], dim=2)


def conv(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv2d if dims == 2 else Conv3d


def transposed_conv(dims: int) -> type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]:
    return nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d


def norm(kind: Literal["instance", "batch", "group"], channels: int) -> nn.Module:
    """The normalisation layer called ``kind``; groups (Wu 2018) are 8, or as many as divide the
    channels.
    """
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "group":
        return GroupNorm(next(n for n in range(GROUPS, 0, -1) if channels % n == 0), channels)
    return BatchNorm(channels)


def max_pool(dims: int) -> type[nn.MaxPool2d] | type[nn.MaxPool3d]:
    return nn.MaxPool2d if dims == 2 else nn.MaxPool3d


def dropout(net: Network) -> nn.Module:
    """Drops single values (Srivastava 2014), in QuickNAT whole feature maps (Tompson 2015), each as
    its authors do.
    """
    if not net.dropout:
        return nn.Identity()
    return nn.Dropout2d(net.dropout) if net.kind == "quicknat" else nn.Dropout(net.dropout)


def activation(kind: Literal["leaky_relu", "relu", "prelu"], channels: int) -> nn.Module:
    """The activation called ``kind``."""
    if kind == "leaky_relu":
        return nn.LeakyReLU(0.01, inplace=True)
    return nn.ReLU(inplace=True) if kind == "relu" else nn.PReLU(channels)


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module | None = None) -> Tensor:
    """Both layers one after the other, in one operation where they can be."""
    if isinstance(norm, InstanceNorm) and isinstance(act, nn.LeakyReLU | nn.ReLU):
        return norm(x, getattr(act, "negative_slope", 0.0))  # type: ignore[no-any-return]
    x = norm(x)
    return x if act is None else act(x)


class ConvNormAct(nn.Sequential):
    """Convolution (same size for stride 1), normalisation, activation; the last two may be left
    out.
    """

    def __init__(
        self,
        net: Network,
        c_in: int,
        c_out: int,
        kernel: Sequence[int],
        stride: Sequence[int] = (1, 1, 1),
        act: bool = True,
    ):
        size, step = tuple(kernel[: net.dims]), tuple(stride[: net.dims])
        layers: list[nn.Module] = [
            conv(net.dims)(c_in, c_out, size, step, tuple(k // 2 for k in size), bias=False),  # type: ignore[arg-type]
            norm(net.norm, c_out),
        ]
        if act:
            layers.append(activation(net.activation, c_out))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        convolution, *rest = self
        return norm_act(convolution(x), *rest)


class NormActConv(nn.Sequential):
    """Normalisation, activation, convolution of the same size: the order of dense blocks (Huang
    2017), whose layers share their raw inputs.
    """

    def __init__(self, net: Network, c_in: int, c_out: int, kernel: Sequence[int]):
        size = tuple(kernel[: net.dims])
        convolution = conv(net.dims)(
            c_in,
            c_out,
            size,  # type: ignore[arg-type]
            padding=tuple(k // 2 for k in size),  # type: ignore[arg-type]
            bias=False,
        )
        super().__init__(norm(net.norm, c_in), activation(net.activation, c_in), convolution)

    def forward(self, x: Tensor) -> Tensor:
        norm, act, convolution = self
        return convolution(norm_act(x, norm, act))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Convolutions beside a shortcut (He 2016); the shortcut is projected where size or width
    change.
    """

    def __init__(
        self,
        net: Network,
        c_in: int,
        c_out: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        convs: int,
    ):
        super().__init__()
        layers = [ConvNormAct(net, c_in, c_out, kernel, stride, act=convs > 1)]
        layers += [
            ConvNormAct(net, c_out, c_out, kernel, act=n < convs - 1) for n in range(1, convs)
        ]
        self.convs = nn.Sequential(*layers)
        plain = c_in == c_out and all(s == 1 for s in stride)
        self.shortcut = (
            nn.Identity() if plain else ConvNormAct(net, c_in, c_out, (1, 1, 1), act=False)
        )
        # The voxels that the stride keeps.
        self.kept: Any = (
            ...,
            *(slice(None, None, s) for s in stride[: net.dims]),
        )
        self.act = activation(net.activation, c_out)

    def forward(self, x: Tensor) -> Tensor:
        # not a strided 1x1 convolution: with fewer than 8 channels its backward pass writes outside
        # its memory (torch 2.13, CPU)
        return self.act(self.convs(x) + self.shortcut(x[self.kept]))  # type: ignore[no-any-return]


class ResNetBlock(nn.Module):
    """Two convolutions beside a shortcut that is average-pooled where the block strides and
    projected where the width changes (He 2019).
    """

    def __init__(
        self, net: Network, c_in: int, c_out: int, kernel: Sequence[int], stride: Sequence[int]
    ):
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormAct(net, c_in, c_out, kernel, stride),
            ConvNormAct(net, c_out, c_out, kernel, act=False),
        )
        step = tuple(stride[: net.dims])
        self.pool = AveragePool(step) if max(step) > 1 else nn.Identity()
        self.project = (
            ConvNormAct(net, c_in, c_out, (1, 1, 1), act=False) if c_in != c_out else nn.Identity()
        )
        self.act = activation(net.activation, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.convs(x) + self.project(self.pool(x)))  # type: ignore[no-any-return]


def resnet_stage(
    net: Network,
    c_in: int,
    c_out: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    blocks: int,
    stem: bool,
) -> nn.Sequential:
    """``blocks`` residual blocks, the first with ``stride``; before them, in the first stage, a
    convolution to its width.
    """
    layers: list[nn.Module] = [ConvNormAct(net, c_in, c_out, kernel)] if stem else []
    layers += [
        ResNetBlock(net, c_out if stem or n else c_in, c_out, kernel, (1, 1, 1) if n else stride)
        for n in range(blocks)
    ]
    return nn.Sequential(*layers)


def stage(
    net: Network,
    c_in: int,
    c_out: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    convs: int,
    first: bool = False,
) -> nn.Module:
    """One encoder stage of ``convs`` convolutions or blocks: plain or residual, as ``net`` says."""
    if net.encoder == "resnet":
        return resnet_stage(net, c_in, c_out, kernel, stride, convs, stem=first)
    if net.encoder == "residual":
        return ResidualBlock(net, c_in, c_out, kernel, stride, convs)
    return plain_stage(net, c_in, c_out, kernel, stride, convs)


def plain_stage(
    net: Network,
    c_in: int,
    c_out: int,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1, 1),
    convs: int = 2,
) -> nn.Sequential:
    """``convs`` convolutions, the first with ``stride``."""
    first = ConvNormAct(net, c_in, c_out, kernel, stride)
    return nn.Sequential(first, *(ConvNormAct(net, c_out, c_out, kernel) for _ in range(convs - 1)))

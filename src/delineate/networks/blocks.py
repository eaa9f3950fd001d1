"""Building blocks that the networks share, in 2-D and 3-D: convolutions, norms, pooling, stages.

Shapes: x (B, C, I, J, K) in 3-D, (B, C, I, J) in 2-D. Kernels and strides are given as triples; in
2-D the last entry is dropped. Of a plan, this module knows only the network's part.
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
SMALL = 20480  # C * I * J up to which torch convolves a single sample by its slow implementation


def tracing() -> bool:
    """Whether the network is being traced for a compiler. Plain layers are used then: a compiler
    handles them better than the substitutes that are faster in torch.
    """
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class InstanceNorm(nn.Module):
    """Normalise each channel of each sample to zero mean and unit standard deviation (Ulyanov
    2016), then apply a learnt scale and shift.

    A leaky ReLU of ``slope`` can follow in the same operation; slope 1 means no activation.
    Training on a CPU uses ``fused``. Otherwise, on a CPU, batch norm is applied to one sample at a
    time: the result is the same, but torch's batch norm keeps channels-last memory and bf16, while
    its instance norm copies to another layout.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, slope: float = 1.0) -> Tensor:
        if x.shape[2:].numel() > 1 and torch.is_grad_enabled() and not tracing():
            from . import fused  # loads a compiler, which prediction does not need

            if fused.fits(x):
                return fused.norm_act(x, self.weight, self.bias, slope, EPSILON)
        y = self._norm(x)
        return y if slope == 1 else functional.leaky_relu(y, slope, inplace=True)

    def _norm(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            return _scale_and_shift(x, self.weight, self.bias)
        if x.device.type != "cpu" or tracing():
            return functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=EPSILON)
        # Batch norm of a single sample is instance norm.
        samples = [
            functional.batch_norm(
                one, None, None, self.weight, self.bias, training=True, eps=EPSILON
            )
            for one in torch.split(x, 1)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


def _scale_and_shift(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The norm of one value per channel: with no standard deviation, it is only scaled and
    shifted.
    """
    each = (-1, *(1 for _ in x.shape[2:]))
    return x * weight.view(each) + bias.view(each)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch norm (Ioffe 2015) for 2-D and 3-D. A single value per channel has no standard
    deviation and is normalised by the running statistics. ``share``: the part of a batch that it
    sees (``training.ranks``); the statistics are those of the batch.
    """

    share: Any = None

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        if self.share is not None and self.training and self.share.size(x[:, 0]) > 1:
            return self._of_the_batch(x)
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

    def _of_the_batch(self, x: Tensor) -> Tensor:
        axes, count = (0, *range(2, x.ndim)), self.share.size(x[:, 0])
        each = (1, -1, *(1 for _ in axes[1:]))
        mean = self.share.total(x.float().sum(axes)) / count
        centred = x.float() - mean.view(each)
        variance = self.share.total(centred.square().sum(axes)) / count
        if self.share.first():
            self._track(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * (variance + self.eps).rsqrt().view(each)
        return _scale_and_shift(scaled, self.weight, self.bias).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        seen, kept = self.num_batches_tracked, (self.running_mean, self.running_var)
        if seen is None or kept[0] is None or kept[1] is None:
            return
        seen.add_(1)
        weight = 1 / float(seen) if self.momentum is None else self.momentum
        kept[0].lerp_(mean, weight)
        kept[1].lerp_(variance, weight)


class GroupNorm(nn.GroupNorm):
    """torch's group norm (Wu 2018); it can also be the first layer, on the image itself."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1 and self.num_groups == self.num_channels:
            return _scale_and_shift(x, self.weight, self.bias)
        if torch.is_grad_enabled() and not x.requires_grad:
            # On channels-last memory the backward pass always writes a gradient of x, and crashes
            # if x requires none (torch 2.13, CPU).
            x = x.contiguous()
        return super().forward(x)


class AveragePool(nn.Module):
    """Average pooling over adjacent boxes of ``step`` voxels.

    On a CPU, torch's 3-D version has no bf16 and does not keep channels-last memory. Its 2-D
    version does both, so it is applied twice: first over J and K, then over I.
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
        # Pool J and K of each slice: (B I, C, J', K').
        slices = functional.avg_pool2d(x.transpose(1, 2).flatten(0, 1), self.step[1:])
        # Pool I with the other two axes as one: (B, C, I, J' K').
        columns = slices.reshape(b, i, c, -1).transpose(1, 2)
        return functional.avg_pool2d(columns, (self.step[0], 1)).reshape(
            b, c, -1, *slices.shape[2:]
        )


class Conv3d(nn.Conv3d):
    """torch's 3-D convolution, made as fast for a single small sample as for several.

    In float32 on a CPU, torch uses its fast implementation only for several samples, or if channels
    times all axes but the last exceed ``SMALL`` (torch 2.13, ``use_mkldnn``). The slow one takes
    three to ten times as long, on one core. A single small sample is therefore computed as a batch
    of two: its halves along the first axis.

    In bfloat16 on a CPU with units for it, torch 2.13 (oneDNN) reads memory that nobody has written
    for the gradient of the weights, where the first axis is shorter than the kernel and not 1: the
    gradient may be NaN, or any number. Such an axis is therefore padded before the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self._is_short(x):
            n = int(self.padding[0])
            padded = functional.pad(x, (0, 0, 0, 0, n, n))
            inner = (0, *self.padding[1:])
            return functional.conv3d(padded, self.weight, self.bias, self.stride, inner)
        # The cases for which torch would use its slow implementation.
        slow = (
            x.shape[0] == 1
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.shape[1:-1].numel() <= SMALL
        )
        if not slow or tracing() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        kernel, stride, padding = (int(n[0]) for n in (self.kernel_size, self.stride, self.padding))
        planes = (x.shape[2] + 2 * padding - kernel) // stride + 1  # of the result
        if planes < 2:
            return super().forward(x)
        # Halve the result; if the number of planes is odd, both halves compute the middle one.
        half = -(-planes // 2)
        # The input planes of each half overlap by the kernel's reach.
        begin, depth = (planes - half) * stride, (half - 1) * stride + kernel
        padded = functional.pad(x, (0, 0, 0, 0, padding, padding))
        halves = torch.cat([padded[:, :, :depth], padded[:, :, begin : begin + depth]])
        y = functional.conv3d(halves, self.weight, self.bias, self.stride, (0, *self.padding[1:]))
        # Join the halves along the first axis; in channels-last memory the even case is a view.
        if 2 * half == planes:
            return y.movedim(1, -1).flatten(0, 1)[None].movedim(-1, 1)
        return torch.cat([y[:1], y[1:, :, 1:]], dim=2)

    def _is_short(self, x: Tensor) -> bool:
        """Whether torch may get the gradient of the weights wrong."""
        return (
            torch.is_grad_enabled()
            and x.device.type == "cpu"
            and (x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))
            and 1 < x.shape[2] < self.kernel_size[0]
            and not tracing()
        )


def conv(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution class for 2 or 3 dimensions."""
    return nn.Conv2d if dims == 2 else Conv3d


def transposed_conv(dims: int) -> type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]:
    """The transposed convolution class for 2 or 3 dimensions."""
    return nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d


def norm(kind: Literal["instance", "batch", "group"], channels: int) -> nn.Module:
    """The normalisation layer named ``kind``. Group norm (Wu 2018) has 8 groups, or the next
    smaller number that divides the channels.
    """
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "group":
        return GroupNorm(next(n for n in range(GROUPS, 0, -1) if channels % n == 0), channels)
    return BatchNorm(channels)


def max_pool(dims: int) -> type[nn.MaxPool2d] | type[nn.MaxPool3d]:
    """The max pooling class for 2 or 3 dimensions."""
    return nn.MaxPool2d if dims == 2 else nn.MaxPool3d


def dropout(net: Network) -> nn.Module:
    """The dropout layer of ``net``; the identity if its rate is 0.

    It drops single values (Srivastava 2014), or in QuickNAT whole feature maps (Tompson 2015), as
    the authors of each network do.
    """
    if not net.dropout:
        return nn.Identity()
    return nn.Dropout2d(net.dropout) if net.kind == "quicknat" else nn.Dropout(net.dropout)


def activation(kind: Literal["leaky_relu", "relu", "prelu"], channels: int) -> nn.Module:
    """The activation layer named ``kind``."""
    if kind == "leaky_relu":
        return nn.LeakyReLU(0.01, inplace=True)
    return nn.ReLU(inplace=True) if kind == "relu" else nn.PReLU(channels)


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module | None = None) -> Tensor:
    """Apply the norm, then the activation, in one operation if possible."""
    if isinstance(norm, InstanceNorm) and isinstance(act, nn.LeakyReLU | nn.ReLU):
        return norm(x, getattr(act, "negative_slope", 0.0))  # type: ignore[no-any-return]
    x = norm(x)
    return x if act is None else act(x)


class ConvNormAct(nn.Sequential):
    """Convolution (of the same size at stride 1), normalisation and, optionally, activation."""

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
        convolution: Any = conv(net.dims)
        layers: list[nn.Module] = [
            convolution(c_in, c_out, size, step, tuple(k // 2 for k in size), bias=False),
            norm(net.norm, c_out),
        ]
        if act:
            layers.append(activation(net.activation, c_out))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        convolution, *rest = self
        return norm_act(convolution(x), *rest)


class NormActConv(nn.Sequential):
    """Normalisation, activation, convolution of the same size: the order in dense blocks (Huang
    2017), whose layers share their inputs before normalisation.
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
    """Convolutions with a shortcut (He 2016). The shortcut is projected if the size or the number
    of channels changes.
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
        # The shortcut selects voxels by slicing, not by a strided 1x1 convolution: with fewer than
        # 8 channels the backward pass of that one writes outside its memory (torch 2.13, CPU).
        return self.act(self.convs(x) + self.shortcut(x[self.kept]))  # type: ignore[no-any-return]


class ResNetBlock(nn.Module):
    """Two convolutions with a shortcut (He 2019). The shortcut is average-pooled if the block has a
    stride, and projected if the number of channels changes.
    """

    def __init__(
        self, net: Network, c_in: int, c_out: int, kernel: Sequence[int], stride: Sequence[int]
    ):
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormAct(net, c_in, c_out, kernel, stride),
            ConvNormAct(net, c_out, c_out, kernel, act=False),
        )
        # The shortcut: average pool for the size, 1x1 convolution for the channels.
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
    """``blocks`` residual blocks, the first with ``stride``. With ``stem`` (the first stage), a
    convolution to ``c_out`` channels comes before them.
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
    """One encoder stage of ``convs`` convolutions or blocks, plain or residual by
    ``net.encoder``.
    """
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

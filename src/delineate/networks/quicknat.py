"""QuickNAT (Roy 2019), with squeeze and excitation (Roy 2018): dense blocks, max pooling, and
unpooling by the pooled indices; 2-D only.

    x -> block 0 ----------------- skip, indices ----------> unpool -> [skip, unpooled] -> block 0
    -> head
           pool -> block 1 ------- skip, indices -> unpool -> [skip, unpooled] -> block 1
             ...                                  ...
               pool -> block N (bottleneck: no excitation, no dropout)

Shapes: x (B, C, I, J) with I and J divisible by the product of strides -> logits (B, L, I, J).
A block is ``convs`` convolutions of ``kernels``, each of which sees the block's input and all
outputs before it, then a 1x1 convolution of all of them to ``width`` feature maps; normalisation
and activation stand before each. After it come excitation and dropout, in the encoder and the
decoder: every block but the bottleneck. The paper's setting, 3.5 M parameters for 28 classes: 4 + 1
+ 4 blocks, widths 64, kernels 5, convs 2, strides 2, batch norm, dropout 0.2; activation "prelu" as
in the authors' code. Unlike there, a convolution has no bias, which the normalisation after it
would take away again, and a PReLU's slope is learnt for each feature map.

Excitation "both" takes the larger of the channel's and the spatial one, voxel by voxel: the
"max-out" of Roy 2018 (IEEE TMI 38), which also the authors' code has; the earlier conference paper
summed them.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.plan import Network
from .blocks import NormActConv, dropout, tracing

REDUCTION = 2  # of feature maps in the channels' excitation (Roy 2018)


class ChannelExcitation(nn.Module):
    """Each feature map weighted by what the means of all say (cSE; Hu 2018)."""

    def __init__(self, width: int):
        super().__init__()
        narrow = max(1, width // REDUCTION)
        self.weigh = nn.Sequential(
            nn.Conv2d(width, narrow, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean(dim=(2, 3), keepdim=True))  # type: ignore[no-any-return]


class SpatialExcitation(nn.Module):
    """Each pixel weighted by what all its features say (sSE)."""

    def __init__(self, width: int):
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)  # type: ignore[no-any-return]


class BothExcitations(nn.Module):
    """The larger of the two (csSE)."""

    def __init__(self, width: int):
        super().__init__()
        self.channel = ChannelExcitation(width)
        self.spatial = SpatialExcitation(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.channel(x), self.spatial(x))


EXCITATIONS = {"channel": ChannelExcitation, "spatial": SpatialExcitation, "both": BothExcitations}


class CompetitiveBlock(nn.Module):
    """Convolutions that each see all that came before, then one of kernel 1 that gathers them."""

    def __init__(self, net: Network, stage: int, c_in: int):
        super().__init__()
        width, convs = net.widths[stage], net.convs_at(stage)
        self.convs = nn.ModuleList(
            NormActConv(net, c_in + n * width, width, net.kernels[stage]) for n in range(convs)
        )
        self.gather = NormActConv(net, c_in + convs * width, width, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.cat([x, conv(x)], dim=1)
        return self.gather(x)  # type: ignore[no-any-return]


def _excited(net: Network, stage: int, c_in: int) -> nn.Sequential:
    """A dense block with what follows it outside the bottleneck."""
    excitation = (
        nn.Identity() if net.squeeze == "none" else EXCITATIONS[net.squeeze](net.widths[stage])
    )
    return nn.Sequential(CompetitiveBlock(net, stage, c_in), excitation, dropout(net))


def _pooled(x: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The largest of each box of ``step``, and where it stood: torch's indices, or (traced, for
    compilers that have no unpooling) a mask of ``x``.

    Of equal values the first counts, in either way.
    """
    if not tracing():
        return functional.max_pool2d(x, step, step, return_indices=True)
    pooled = functional.max_pool2d(x, step, step)
    free, parts = torch.ones_like(pooled), []
    for a, b in itertools.product(range(step[0]), range(step[1])):
        here = (x[..., a :: step[0], b :: step[1]] == pooled).to(x.dtype) * free
        free = free - here
        parts.append(here)
    return pooled, torch.stack(parts, dim=2)


def _unpooled(x: Tensor, places: Tensor, like: Tensor, step: tuple[int, int]) -> Tensor:
    """Each value of ``x`` where ``places`` say, zeros elsewhere, of the size of ``like``."""
    if not tracing():
        return functional.max_unpool2d(x, places, step, step, output_size=list(like.shape[2:]))
    spread = x[:, :, None] * places  # (B, C, a * b, I, J)
    batch, channels, _, rows, columns = spread.shape
    boxes = spread.reshape(batch, channels, *step, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return boxes.reshape(batch, channels, rows * step[0], columns * step[1])


class QuickNAT(nn.Module):
    """A QuickNAT as ``net`` says; ``forward`` gives the logits."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        width, levels = net.widths[0], range(len(net.widths) - 1)
        self.steps = [stride[:2] for stride in net.strides]
        self.encoder = nn.ModuleList(_excited(net, n, width if n else net.channels) for n in levels)
        self.bottleneck = CompetitiveBlock(net, len(net.widths) - 1, width)
        self.decoder = nn.ModuleList(_excited(net, n, 2 * width) for n in levels)
        self.head = nn.Conv2d(width, net.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encode, step in zip(self.encoder, self.steps, strict=True):
            skip = encode(x)
            x, places = _pooled(skip, step)
            skips.append((skip, places))
        x = self.bottleneck(x)
        for decode, (skip, places), step in reversed(
            list(zip(self.decoder, skips, self.steps, strict=True))
        ):
            x = decode(torch.cat([skip, _unpooled(x, places, skip, step)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

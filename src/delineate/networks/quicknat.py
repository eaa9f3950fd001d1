"""QuickNAT (Roy 2019) with squeeze and excitation (Roy 2018): dense blocks, max pooling, and
unpooling at the pooled indices. 2-D only.

    x -> block 0 -------------- skip, indices -----> unpool -> [skip, unpooled] -> block 0 -> head
           pool -> block 1 ---- skip, indices -> unpool -> [skip, unpooled] -> block 1
             ...                                ...
               pool -> block N (bottleneck: no excitation, no dropout)

Shapes: x (B, C, I, J) with I and J divisible by the product of strides -> logits (B, L, I, J).
A block has ``convs`` convolutions of ``kernels``. The input of each is the block's input with all
earlier outputs. A 1x1 convolution then reduces all of them to ``width`` feature maps. Each
convolution is preceded by normalisation and activation. Every block of the encoder and the decoder
is followed by excitation and dropout; the bottleneck is not.

The paper's setting (3.5 M parameters for 28 classes): 4 + 1 + 4 blocks, widths 64, kernels 5, convs
2, strides 2, batch norm, dropout 0.2. The activation "prelu" is that of the authors' code. Unlike
there, the convolutions have no bias, which the next normalisation would remove, and the slope of a
PReLU is learnt for each feature map.

Excitation "both" is the voxelwise maximum of the channel and the spatial excitation: the "max-out"
of Roy 2018 (IEEE TMI 38) and of the authors' code. The earlier conference paper summed them.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.plan import Network
from .blocks import NormActConv, dropout, tracing

REDUCTION = 2  # factor between the feature maps and the hidden units of cSE (Roy 2018)


class ChannelExcitation(nn.Module):
    """Channel excitation (cSE; Hu 2018): weights each feature map, by the means of all of them."""

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
    """Spatial excitation (sSE): weights each pixel, by all its features."""

    def __init__(self, width: int):
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)  # type: ignore[no-any-return]


class BothExcitations(nn.Module):
    """The maximum of channel and spatial excitation (csSE)."""

    def __init__(self, width: int):
        super().__init__()
        self.channel = ChannelExcitation(width)
        self.spatial = SpatialExcitation(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.channel(x), self.spatial(x))


EXCITATIONS = {"channel": ChannelExcitation, "spatial": SpatialExcitation, "both": BothExcitations}


class CompetitiveBlock(nn.Module):
    """A dense block: convolutions of all earlier feature maps, then a 1x1 convolution of the
    whole.
    """

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


def _excited_block(net: Network, stage: int, c_in: int) -> nn.Sequential:
    """A dense block with excitation and dropout, as outside the bottleneck."""
    excitation = (
        nn.Identity() if net.squeeze == "none" else EXCITATIONS[net.squeeze](net.widths[stage])
    )
    return nn.Sequential(CompetitiveBlock(net, stage, c_in), excitation, dropout(net))


def _pooled(x: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Max pooling over boxes of ``step``: (maxima (B, C, I, J), their places).

    The places are torch's indices. While tracing they are a mask (B, C, a * b, I, J) over the a * b
    pixels of each box, because compilers have no unpooling. If values are equal, both mark the
    first.
    """
    if not tracing():
        return functional.max_pool2d(x, step, step, return_indices=True)
    pooled = functional.max_pool2d(x, step, step)
    # ``free`` is 1 for boxes whose maximum has not been found yet.
    free, masks = torch.ones_like(pooled), []
    for a, b in itertools.product(range(step[0]), range(step[1])):
        here = (x[..., a :: step[0], b :: step[1]] == pooled).to(x.dtype) * free
        free = free - here
        masks.append(here)
    return pooled, torch.stack(masks, dim=2)


def _unpooled(x: Tensor, places: Tensor, like: Tensor, step: tuple[int, int]) -> Tensor:
    """Each value of ``x`` at its place (see ``_pooled``), zeros elsewhere, in the size of
    ``like``.
    """
    if not tracing():
        return functional.max_unpool2d(x, places, step, step, output_size=list(like.shape[2:]))
    spread = x[:, :, None] * places  # (B, C, a * b, I, J)
    # Interleave the boxes' pixels: (B, C, a, b, I, J) -> (B, C, I, a, J, b) -> (B, C, I a, J b).
    batch, channels, _, rows, columns = spread.shape
    boxes = spread.reshape(batch, channels, *step, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return boxes.reshape(batch, channels, rows * step[0], columns * step[1])


class QuickNAT(nn.Module):
    """The QuickNAT that ``net`` describes; ``forward`` returns the logits (B, L, I, J)."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        width, levels = net.widths[0], range(len(net.widths) - 1)
        self.steps = [stride[:2] for stride in net.strides]
        self.encoder = nn.ModuleList(
            _excited_block(net, n, width if n else net.channels) for n in levels
        )
        self.bottleneck = CompetitiveBlock(net, len(net.widths) - 1, width)
        self.decoder = nn.ModuleList(_excited_block(net, n, 2 * width) for n in levels)
        self.head = nn.Conv2d(width, net.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Down: keep the output of each block and the places of its maxima.
        skips = []
        for encode, step in zip(self.encoder, self.steps, strict=True):
            skip = encode(x)
            x, places = _pooled(skip, step)
            skips.append((skip, places))
        # Up: unpool to those places, and join the skip.
        x = self.bottleneck(x)
        for decode, (skip, places), step in reversed(
            list(zip(self.decoder, skips, self.steps, strict=True))
        ):
            x = decode(torch.cat([skip, _unpooled(x, places, skip, step)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

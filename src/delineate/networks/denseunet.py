"""DenseUNet (Li 2018): a DenseNet (Huang 2017) as encoder, a decoder to which the skips are added.
It is the 2-D network of H-DenseUNet, here also in 3-D.

    x -> stem, stride -> norm, act -- skip ----------> up -> (+) -> conv 1 -> up -> conv 0 -> head
           max pool -> dense block --- skip ----> up -> (+) -> conv 2
             transition -> dense block - skip > up -> (+) -> conv 3
               ...                             ...
                 transition -> dense block -> norm, act

Shapes: x (B, C, *size) with size divisible by the product of strides -> logits (B, L, *size).
S strides make S + 1 stages. The stem leads to stage 1, a max pool to stage 2 with the first dense
block, and transitions (1x1 convolution to half the feature maps, average pool) to the other stages.
Upsampling repeats voxels. A skip is added to the upsampled feature maps of the stage below. If the
numbers of channels differ, a 1x1 convolution projects the skip, as the original does for its
deepest one.

``widths`` and ``kernels`` list the decoder's convolutions at stages 0 ... S - 1, then the stem. A
dense block uses the kernel of its stage, the deepest block that of stage S - 1. ``convs`` gives the
number of layers in each of the S - 1 blocks. Dropout follows every dense layer (Huang 2017) and
precedes the head (Li 2018). The published networks, each with batch norm, ReLU, five strides of 2,
kernels 3 and a stem kernel of 7:

    DenseUNet-167   convs (6, 12, 36, 24), growth 48 (DenseNet-161), widths (64, 96, 96, 384, 768,
                    96); 49.5 M parameters in 2-D
    DenseUNet-65    convs (3, 4, 12, 8), growth 32, widths (64, 96, 192, 224, 504, 96); 6.5 M
                    parameters in 2-D

The second is the original's 3-D counterpart. Its published code omits the skips, because their
numbers of channels do not match; here they are projected.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.plan import Network
from .blocks import AveragePool, ConvNormAct, NormActConv, activation, conv, dropout, max_pool, norm

BOTTLENECK = 4  # feature maps of a layer's 1x1 convolution / ``growth`` (Huang 2017, DenseNet-B)
COMPRESSION = 2  # a transition divides the number of feature maps by this (DenseNet-C)
POINT = (1, 1, 1)


class DenseBlock(nn.Module):
    """Layers that each append ``growth`` feature maps to their input (B, C, *size)."""

    def __init__(self, net: Network, c_in: int, layers: int, kernel: Sequence[int]):
        super().__init__()
        inner = BOTTLENECK * net.growth
        inputs = [c_in + n * net.growth for n in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                NormActConv(net, c, inner, POINT),
                NormActConv(net, inner, net.growth, kernel),
                dropout(net),
            )
            for c in inputs
        )
        self.width = c_in + layers * net.growth

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DenseUNet(nn.Module):
    """The DenseUNet that ``net`` describes; ``forward`` returns the logits (B, L, *size)."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        *widths, stem = net.widths
        steps = [tuple(stride[: net.dims]) for stride in net.strides]
        self.stem = ConvNormAct(net, net.channels, stem, net.kernels[-1], net.strides[0])
        # Max pooling with stride 2 covers 3 voxels, with stride 1 only one.
        size = tuple(2 * s - 1 for s in steps[1])
        self.pool = max_pool(net.dims)(size, steps[1], tuple(k // 2 for k in size))
        # Encoder: each block is followed by a transition to the next stage, except the last.
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        skips, width = [stem], stem
        for n in range(len(steps) - 1):
            block = DenseBlock(net, width, net.convs_at(n), net.kernels[min(n + 2, len(steps) - 1)])
            self.blocks.append(block)
            width = block.width
            if n < len(steps) - 2:
                skips.append(width)
                self.transitions.append(
                    nn.Sequential(
                        NormActConv(net, width, width // COMPRESSION, POINT),
                        AveragePool(steps[n + 2]),
                    )
                )
                width //= COMPRESSION
        self.last = nn.Sequential(norm(net.norm, width), activation(net.activation, width))
        # Decoder: ``below`` is the number of channels upsampled to each level.
        below = [*widths[1:], width]
        self.up = nn.ModuleList(nn.Upsample(scale_factor=step) for step in steps)
        # Skips are projected if their number of channels differs.
        pairs = zip(skips, below[1:], strict=True)
        self.project = nn.ModuleList(
            nn.Identity() if c == b else conv(net.dims)(c, b, 1) for c, b in pairs
        )
        self.decoder = nn.ModuleList(
            ConvNormAct(net, b, w, k) for b, w, k in zip(below, widths, net.kernels, strict=False)
        )
        self.dropout = dropout(net)
        self.head = conv(net.dims)(widths[0], net.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Down: the stem's output and that of each block but the last are skips.
        x = self.stem(x)
        skips = [x]
        x = self.pool(x)
        # The last block has no transition.
        for block, transition in zip(self.blocks, self.transitions, strict=False):
            x = block(x)
            skips.append(x)
            x = transition(x)
        x = self.last(self.blocks[-1](x))
        # Up: add each skip; level 0, the full resolution, has none.
        for level in reversed(range(1, len(self.decoder))):
            x = self.decoder[level](self.up[level](x) + self.project[level - 1](skips[level - 1]))
        x = self.decoder[0](self.up[0](x))
        return self.head(self.dropout(x))  # type: ignore[no-any-return]

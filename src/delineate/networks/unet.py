"""U-Net in 2-D and 3-D: with a plain, residual or ResNet encoder, strided or pooled, with deep
supervision.

Ronneberger 2015 (2-D, ``down="pool"``) and Çiçek 2016 (3-D). The default follows nnU-Net (Isensee
2021): strided convolutions instead of pooling, instance norm, leaky ReLU and deep supervision.

    x -> stage 0 ---------------- skip --------------> up 0 -> head 0   full resolution
           stage 1 -------------- skip ------> up 1 -> head 1           1/2 (training only)
             ...                               ...
               stage N (bottleneck)

Shapes: x (B, C, *size) with size divisible by the product of strides -> logits (B, L, *size), L
classes including the background.

Dropout is at the end of every encoder stage below full resolution, the bottleneck included.
Ronneberger 2015 has it "at the end of the contracting path", common 2-D versions in every block.
Here the skips carry it into the decoder as well, so that Monte-Carlo samples (Gal 2016) also differ
at fine scales. Features at full resolution are not dropped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.plan import Network
from .blocks import conv, dropout, max_pool, plain_stage, stage, transposed_conv


class UNet(nn.Module):
    """The U-Net that ``net`` describes.

    ``forward`` returns the logits (B, L, *size). In training mode with deep supervision it returns
    a list of them: full resolution first, each next one smaller by a stride. The coarsest decoder
    level has no head, because its output is too small to be of use.
    """

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        widths, one = net.widths, (1, 1, 1)
        inputs = (net.channels, *widths[:-1])
        pooled = net.down == "pool"
        steps = [tuple(stride[: net.dims]) for stride in net.strides]
        # Encoder: each stage after the first reduces the size, by its stride or by pooling.
        shapes = enumerate(zip(inputs, widths, net.kernels, (one, *net.strides), strict=True))
        self.encoder = nn.ModuleList(
            stage(net, c, w, k, one if pooled else s, net.convs_at(n), n == 0)
            for n, (c, w, k, s) in shapes
        )
        self.pool = nn.ModuleList(
            max_pool(net.dims)(step) if pooled else nn.Identity() for step in steps
        )
        # Decoder: level n upsamples to the resolution of stage n and joins that stage's skip.
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.heads = nn.ModuleList()
        # Heads: at full resolution and, for deep supervision, at all others but the coarsest.
        levels = len(widths) - 1
        for level, step in enumerate(steps):
            up: Any = transposed_conv(net.dims)
            self.up.append(up(widths[level + 1], widths[level], step, step))
            self.decoder.append(
                plain_stage(
                    net,
                    2 * widths[level],
                    widths[level],
                    net.kernels[level],
                    convs=net.decoder_convs_at(level),
                )
            )
            has_head = level == 0 or (net.deep_supervision and level < levels - 1)
            self.heads.append(
                conv(net.dims)(widths[level], net.classes, 1) if has_head else nn.Identity()
            )
        self.dropout = dropout(net)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        # Down: keep the output of each stage as a skip.
        x = self.encoder[0](x)
        skips = [x]
        for pool, encode in zip(self.pool, self.encoder[1:], strict=True):
            x = self.dropout(encode(pool(x)))
            skips.append(x)
        skips.pop()  # the bottleneck's own output
        # Up: join each skip, and collect the logits of the levels with a head.
        outputs: list[Tensor] = []
        for level in reversed(range(len(skips))):
            x = torch.cat([self.up[level](x), skips[level]], dim=1)
            x = self.decoder[level](x)
            has_output = level == 0 or (
                self.training and not isinstance(self.heads[level], nn.Identity)
            )
            if has_output:
                outputs.insert(0, self.heads[level](x))
        return outputs if self.training and self.net.deep_supervision else outputs[0]

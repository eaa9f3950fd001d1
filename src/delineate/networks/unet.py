"""U-Net, 2-D and 3-D, plain or residual encoder or a ResNet's, strided or pooled, with deep
supervision.

Ronneberger 2015 (2-D, ``down="pool"``), Çiçek 2016 (3-D); strided convolutions instead of pooling,
instance norm, leaky ReLU and
deep supervision as in nnU-Net (Isensee 2021), which is the default. Reads top to bottom:

    x -> stage 0 ---------------- skip --------------> up 0 -> head 0   full resolution
           stage 1 -------------- skip ------> up 1 -> head 1           1/2 (training only)
             ...                               ...
               stage N (bottleneck)

Shapes: x (B, C, *size) with size divisible by the product of strides -> logits (B, L, *size), L
classes with background.

Dropout stands at the end of every encoder stage below full resolution, the bottleneck included.
Ronneberger 2015 has it "at the end of the contracting path", common 2-D versions in every block:
here the skips carry it into the decoder as well, so that samples of it (Gal 2016) differ at fine
scales too, and the input's own resolution is left whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.plan import Network
from .blocks import conv, dropout, max_pool, plain_stage, stage, transposed_conv


class UNet(nn.Module):
    """A U-Net as ``net`` says.

    ``forward`` gives the logits; in training mode with deep supervision a list of them, full
    resolution first, each next one smaller by a stride. The coarsest decoder level has no head: its
    output is too small to teach anything.
    """

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        widths, one = net.widths, (1, 1, 1)
        inputs = (net.channels, *widths[:-1])
        pooled = net.down == "pool"
        steps = [tuple(stride[: net.dims]) for stride in net.strides]
        shapes = enumerate(zip(inputs, widths, net.kernels, (one, *net.strides), strict=True))
        self.encoder = nn.ModuleList(
            stage(net, c, w, k, one if pooled else s, net.convs_at(n), n == 0)
            for n, (c, w, k, s) in shapes
        )
        self.pool = nn.ModuleList(
            max_pool(net.dims)(step) if pooled else nn.Identity() for step in steps
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.heads = nn.ModuleList()
        levels = len(widths) - 1
        for level, step in enumerate(steps):
            self.up.append(transposed_conv(net.dims)(widths[level + 1], widths[level], step, step))  # type: ignore[arg-type]
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
        x = self.encoder[0](x)
        skips = [x]
        for pool, encode in zip(self.pool, self.encoder[1:], strict=True):
            x = self.dropout(encode(pool(x)))
            skips.append(x)
        skips.pop()
        outputs: list[Tensor] = []
        for level in reversed(range(len(skips))):
            x = torch.cat([self.up[level](x), skips[level]], dim=1)
            x = self.decoder[level](x)
            wanted = level == 0 or (
                self.training and not isinstance(self.heads[level], nn.Identity)
            )
            if wanted:
                outputs.insert(0, self.heads[level](x))
        return outputs if self.training and self.net.deep_supervision else outputs[0]

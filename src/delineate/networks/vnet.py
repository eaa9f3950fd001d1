"""V-Net (Milletari 2016): residual stages of 5x5x5 convolutions, learnt down- and upsampling,
PReLU; also in 2-D.

    x -> stage 0 ----------------- skip ----------------> up 0 -> stage 0 (2 w0) -> head
           down 1 -> stage 1 ----- skip ----> up 1 -> stage 1 (2 w1)
             ...                               ...
               down N -> stage N (wN)

Shapes: x (B, C, *size) with size divisible by the product of strides -> logits (B, L, *size).
A stage adds its input to the output of its last convolution, before that one's activation; the
first adds the image itself, its channels repeated over the feature maps. Down: a convolution whose
kernel is its stride; up: the transpose of one, to half the feature maps, beside which the skip
stands. So the decoder's stages are twice as wide as the encoder's at the same resolution, as the
paper's figure 2 has it.

The paper's setting, 65.2 M parameters: widths (16, 32, 64, 128, 256), strides 2, kernels 5, convs
(1, 2, 3, 3, 3), activation "prelu". It has no normalisation; ``net.norm`` is added after every
convolution ("batch" in the common implementations), without which training at its rates needs luck.
Dropout: at the end of every encoder stage below full resolution, as in ``unet``. The light variant
with doubled 3x3x3 convolutions and max pooling is a ``unet`` with ``down="pool"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.plan import Network
from .blocks import ConvNormAct, ResidualBlock, activation, conv, dropout, norm, transposed_conv

ONE = (1, 1, 1)


class InputBlock(nn.Module):
    """The first stage: convolutions of the image, to which the image is added."""

    def __init__(self, net: Network):
        super().__init__()
        width, kernel, convs = net.widths[0], net.kernels[0], net.convs_at(0)
        inputs = (net.channels, *(width for _ in range(convs - 1)))
        self.convs = nn.Sequential(
            *(ConvNormAct(net, c, width, kernel, act=n < convs - 1) for n, c in enumerate(inputs))
        )
        self.act = activation(net.activation, width)
        # Which channel of the image each feature map gets.
        self.repeated = [n % net.channels for n in range(width)]

    def forward(self, x: Tensor) -> Tensor:
        image = x if x.shape[1] == 1 else x[:, self.repeated]
        return self.act(self.convs(x) + image)  # type: ignore[no-any-return]


def _down(net: Network, c_in: int, c_out: int, stride: Sequence[int]) -> nn.Sequential:
    step = tuple(stride[: net.dims])
    return nn.Sequential(
        conv(net.dims)(c_in, c_out, step, step, bias=False),  # type: ignore[arg-type]
        norm(net.norm, c_out),
        activation(net.activation, c_out),
    )


def _up(net: Network, c_in: int, c_out: int, stride: Sequence[int]) -> nn.Sequential:
    step = tuple(stride[: net.dims])
    up = transposed_conv(net.dims)(c_in, c_out, step, step, bias=False)  # type: ignore[arg-type]
    return nn.Sequential(up, norm(net.norm, c_out), activation(net.activation, c_out))


class VNet(nn.Module):
    """A V-Net as ``net`` says; ``forward`` gives the logits."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        widths = net.widths
        levels = range(len(widths) - 1)
        self.entry = InputBlock(net)
        self.down = nn.ModuleList(
            _down(net, widths[n], widths[n + 1], net.strides[n]) for n in levels
        )
        self.encoder = nn.ModuleList(
            ResidualBlock(net, widths[n], widths[n], net.kernels[n], ONE, net.convs_at(n))
            for n in range(1, len(widths))
        )
        # What stands below each level of the decoder.
        below = [
            *(2 * w for w in widths[1:-1]),
            widths[-1],
        ]
        self.up = nn.ModuleList(_up(net, below[n], widths[n], net.strides[n]) for n in levels)
        self.decoder = nn.ModuleList(
            ResidualBlock(net, 2 * widths[n], 2 * widths[n], net.kernels[n], ONE, net.convs_at(n))
            for n in levels
        )
        self.head = conv(net.dims)(2 * widths[0], net.classes, 1)
        self.dropout = dropout(net)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        skips = [x]
        for down, encode in zip(self.down, self.encoder, strict=True):
            x = self.dropout(encode(down(x)))
            skips.append(x)
        skips.pop()
        for level in reversed(range(len(skips))):
            x = self.decoder[level](torch.cat([self.up[level](x), skips[level]], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

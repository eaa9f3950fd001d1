"""V-Net (Milletari 2016): residual stages of 5x5x5 convolutions, learnt down- and upsampling,
PReLU. Also in 2-D.

    x -> stage 0 ----------------- skip ----------------> up 0 -> stage 0 (2 w0) -> head
           down 1 -> stage 1 ----- skip ----> up 1 -> stage 1 (2 w1)
             ...                               ...
               down N -> stage N (wN)

Shapes: x (B, C, *size) with size divisible by the product of strides -> logits (B, L, *size).
A stage adds its input to the output of its last convolution, before the activation. The first stage
adds the image itself, with its channels repeated over the feature maps. Downsampling is a
convolution whose kernel equals its stride. Upsampling is the transpose of one, to as many feature
maps as the skip has, concatenated with the skip. The decoder's stages therefore have twice as many
channels as the encoder's at the same resolution, as in figure 2 of the paper.

The paper's setting (65.2 M parameters): widths (16, 32, 64, 128, 256), strides 2, kernels 5, convs
(1, 2, 3, 3, 3), activation "prelu". The paper has no normalisation; here ``net.norm`` follows every
convolution ("batch" in the common implementations), because training at the paper's learning rates
is unreliable without it. Dropout is at the end of every encoder stage below full resolution, as in
``unet``. The light variant with two 3x3x3 convolutions a stage and max pooling is a ``unet`` with
``down="pool"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.plan import Network
from .blocks import ConvNormAct, ResidualBlock, activation, conv, dropout, norm, transposed_conv

ONE = (1, 1, 1)


class InputBlock(nn.Module):
    """The first stage: convolutions of the image (B, C, *size), to which the image is added."""

    def __init__(self, net: Network):
        super().__init__()
        width, kernel, convs = net.widths[0], net.kernels[0], net.convs_at(0)
        # The last convolution has no activation; it follows the addition.
        inputs = (net.channels, *(width for _ in range(convs - 1)))
        self.convs = nn.Sequential(
            *(ConvNormAct(net, c, width, kernel, act=n < convs - 1) for n, c in enumerate(inputs))
        )
        self.act = activation(net.activation, width)
        # The image channel that is added to each feature map.
        self.repeated = [n % net.channels for n in range(width)]

    def forward(self, x: Tensor) -> Tensor:
        image = x if x.shape[1] == 1 else x[:, self.repeated]
        return self.act(self.convs(x) + image)  # type: ignore[no-any-return]


def _down(net: Network, c_in: int, c_out: int, stride: Sequence[int]) -> nn.Sequential:
    """Downsampling by ``stride``: convolution, norm, activation."""
    step = tuple(stride[: net.dims])
    return nn.Sequential(
        conv(net.dims)(c_in, c_out, step, step, bias=False),  # type: ignore[arg-type]
        norm(net.norm, c_out),
        activation(net.activation, c_out),
    )


def _up(net: Network, c_in: int, c_out: int, stride: Sequence[int]) -> nn.Sequential:
    """Upsampling by ``stride``: transposed convolution, norm, activation."""
    step = tuple(stride[: net.dims])
    up = transposed_conv(net.dims)(c_in, c_out, step, step, bias=False)  # type: ignore[arg-type]
    return nn.Sequential(up, norm(net.norm, c_out), activation(net.activation, c_out))


class VNet(nn.Module):
    """The V-Net that ``net`` describes; ``forward`` returns the logits (B, L, *size)."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net
        widths = net.widths
        levels = range(len(widths) - 1)
        # Encoder: the input block, then downsampling and a residual stage at each level.
        self.entry = InputBlock(net)
        self.down = nn.ModuleList(
            _down(net, widths[n], widths[n + 1], net.strides[n]) for n in levels
        )
        self.encoder = nn.ModuleList(
            ResidualBlock(net, widths[n], widths[n], net.kernels[n], ONE, net.convs_at(n))
            for n in range(1, len(widths))
        )
        # Channels that come from below at each level: of a decoder stage, at last the bottleneck.
        below = [
            *(2 * w for w in widths[1:-1]),
            widths[-1],
        ]
        # Decoder: the upsampled feature maps are as many as the skip's, and are joined with them.
        self.up = nn.ModuleList(_up(net, below[n], widths[n], net.strides[n]) for n in levels)
        self.decoder = nn.ModuleList(
            ResidualBlock(net, 2 * widths[n], 2 * widths[n], net.kernels[n], ONE, net.convs_at(n))
            for n in levels
        )
        self.head = conv(net.dims)(2 * widths[0], net.classes, 1)
        self.dropout = dropout(net)

    def forward(self, x: Tensor) -> Tensor:
        # Down: keep the output of each stage as a skip.
        x = self.entry(x)
        skips = [x]
        for down, encode in zip(self.down, self.encoder, strict=True):
            x = self.dropout(encode(down(x)))
            skips.append(x)
        skips.pop()  # the bottleneck's own output
        # Up: join each skip.
        for level in reversed(range(len(skips))):
            x = self.decoder[level](torch.cat([self.up[level](x), skips[level]], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

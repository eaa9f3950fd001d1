"""Skip connections without copies: the same logits, in no other order of decisions; and networks
that have none stay as they are.
"""

import numpy as np
import pytest
import torch
from tests.plans import small_network
from torch import nn

from delineate.inference import openvino as compiled
from delineate.networks.build import build

pytestmark = pytest.mark.skipif(
    not compiled.available(), reason="OpenVINO is not installed, or not made for this processor"
)


def convolution(channels, out):
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.LeakyReLU())


class Nested(nn.Module):
    """A decoder whose second skip connection comes from the decoder itself (as in U-Net++)."""

    def __init__(self):
        super().__init__()
        self.first, self.down = convolution(1, 4), convolution(4, 8)
        self.middle, self.last = convolution(12, 6), convolution(10, 2)

    def forward(self, x):
        first = self.first(x)
        below = nn.functional.interpolate(
            self.down(nn.functional.avg_pool2d(first, 2)), scale_factor=2
        )
        middle = self.middle(torch.cat([below, first], 1))
        return self.last(torch.cat([first, middle], 1))


class Shared(nn.Module):
    """Joined tensors that two layers read, and one that is joined with itself."""

    def __init__(self):
        super().__init__()
        self.first, self.second = convolution(1, 4), convolution(1, 4)
        self.one, self.two, self.twice = (convolution(8, 2) for _ in range(3))

    def forward(self, x):
        a, b = self.first(x), self.second(x)
        joined = torch.cat([a, b], 1)
        return self.one(joined) + self.two(joined) + self.twice(torch.cat([a, a], 1))


def layers(graph):
    return [n.get_rt_info()["layerType"] for n in graph.get_runtime_model().get_ordered_ops()]


def made(module, shape):
    """(logits of torch, logits of OpenVINO, layers that it runs)"""
    torch.manual_seed(0)
    x = torch.randn(1, *shape)
    graph = compiled.compiled(lambda: module, shape, "float32")
    with torch.no_grad():
        return module(x).numpy(), graph(x.numpy()), layers(graph._compiled)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_decoder_copies_no_skip_connection(dims):
    network = small_network(dims)
    torch.manual_seed(1)
    expected, found, kinds = made(build(network).eval(), (network.channels, *(32,) * dims))
    # Single voxels are rounded further away on a processor with AVX-512.
    assert np.quantile(np.abs(found - expected), 0.999) < 2e-5
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "Concatenation" not in kinds and "StridedSlice" in kinds


def test_a_skip_connection_may_come_from_the_decoder():
    expected, found, kinds = made(Nested().eval(), (1, 16, 12))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert "Concatenation" not in kinds


def test_what_several_layers_read_stays_joined():
    expected, found, kinds = made(Shared().eval(), (1, 16, 12))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert kinds.count("Concatenation") >= 1

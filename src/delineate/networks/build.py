"""Build a network from a plan, and read or write its weights as numpy arrays.

Owns the registration of the package's networks, their initialisation and the memory layout. Shapes
are those of the networks. It knows no file format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ..core.bundle import Weights
from ..core.errors import BundleError, PlanError
from ..core.plan import Network
from ..extend.parts import NetworkKind
from ..extend.registers import NETWORKS
from .denseunet import DenseUNet
from .quicknat import QuickNAT
from .unet import UNet
from .vnet import VNet

for _name, _part in {
    "unet": NetworkKind(UNet, "U-Net (Ronneberger 2015; Çiçek 2016; Isensee 2021)."),
    "denseunet": NetworkKind(DenseUNet, "Dense U-Net (Li 2018)."),
    "vnet": NetworkKind(VNet, "V-Net (Milletari 2016)."),
    "quicknat": NetworkKind(QuickNAT, "QuickNAT (Roy 2019)."),
}.items():
    NETWORKS.add(_name, _part)


def build(net: Network, seed: int | None = None) -> nn.Module:
    """Build the network of ``net`` with random weights, in channels-last memory.

    With a ``seed`` the weights are reproducible; torch's random state stays unchanged either way.
    The package's own networks are initialised as in He 2015, others as their code does it.
    """
    # Draw the weights without disturbing the caller's random state.
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        module = NETWORKS[net.kind].build(net)
        if net.kind in Network.OWN_KINDS:
            module.apply(_he_initialise)
    return _in_memory_format(module, net)


def refuse_misshapen(net: Network, patch: Sequence[int]) -> None:
    """Run a registered network once on an empty patch, and check its output.

    Raises:
        PlanError: it fails, or does not give class scores (1, L, *patch).
    """
    space = tuple(patch[: net.dims])
    wanted = (1, net.classes, *space)
    try:
        with torch.no_grad():
            out = build(net, seed=0).eval()(torch.zeros(1, net.channels, *space))
    except Exception as error:  # anything may be wrong in somebody else's network
        raise PlanError(
            f"the network {net.kind} fails on a patch of {space} voxels "
            f"({type(error).__name__}: {error})"
        ) from error
    found = tuple(out[0].shape if isinstance(out, list) else out.shape)
    if found != wanted:
        raise PlanError(
            f"the network {net.kind} gives the shape {found} for a patch of {space} voxels, but "
            f"class scores of the shape {wanted} are needed"
        )


def memory_format(dims: int) -> torch.memory_format:
    """Channels last, the layout for which AMX and tensor cores are fastest."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def _he_initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def weights_of(module: nn.Module) -> Weights:
    """A copy of every parameter and buffer as a numpy array, by name."""
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in module.state_dict().items()
    }


def filled(net: Network, weights: Weights) -> nn.Module:
    """Build the network of ``net`` with the given weights, in evaluation mode.

    Raises:
        BundleError: the weights do not fit.
    """
    # On the meta device no memory is allocated and no random weights are drawn.
    with torch.device("meta"):
        module = NETWORKS[net.kind].build(net)
    _refuse_misfit(module, weights, _fitting(module, weights))
    module.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, assign=True
    )
    return _in_memory_format(module.eval(), net)


def _in_memory_format(module: nn.Module, net: Network) -> nn.Module:
    # torch's types know no memory format for 3-D networks.
    moved: nn.Module = cast(Any, module).to(memory_format=memory_format(net.dims))
    return moved


def load_weights(module: nn.Module, weights: Weights, strict: bool = True) -> list[str]:
    """Load arrays into ``module``; with ``strict=False`` only those whose name and shape fit.

    Returns:
        Names of the module's parameters and buffers that were not loaded.

    Raises:
        BundleError: names or shapes differ and ``strict`` is set.
    """
    fits = _fitting(module, weights)
    if strict:
        _refuse_misfit(module, weights, fits)
    module.load_state_dict(
        {name: torch.from_numpy(np.array(weights[name])) for name in fits}, strict=False
    )
    return [name for name in module.state_dict() if name not in fits]


def _fitting(module: nn.Module, weights: Weights) -> set[str]:
    """Names of the weights that match the module in name and shape."""
    own = module.state_dict()
    return {
        name
        for name, array in weights.items()
        if name in own and tuple(own[name].shape) == tuple(array.shape)
    }


def _refuse_misfit(module: nn.Module, weights: Weights, fits: set[str]) -> None:
    """Raise BundleError if the module lacks a weight, or a weight has no place in it."""
    # Missing or misshapen weights first, then superfluous ones.
    wrong = [name for name in module.state_dict() if name not in fits] or sorted(
        set(weights) - fits
    )
    if wrong:
        raise BundleError(
            f"the weights do not fit the plan's network: {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )


def parameters(module: nn.Module) -> int:
    """The number of learnt parameters."""
    return sum(p.numel() for p in module.parameters())

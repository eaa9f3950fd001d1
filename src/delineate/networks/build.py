"""From a plan to a module, and weights in and out of it as plain arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..core.bundle import Weights
from ..core.errors import BundleError
from ..core.plan import Network
from .denseunet import DenseUNet
from .quicknat import QuickNAT
from .unet import UNet
from .vnet import VNet

FAMILIES: dict[str, Callable[[Network], nn.Module]] = {
    "unet": UNet,
    "denseunet": DenseUNet,
    "vnet": VNet,
    "quicknat": QuickNAT,
}


def build(net: Network, seed: int | None = None) -> nn.Module:
    """The network that ``net`` describes, with weights drawn from ``seed`` (He 2015), in
    channels-last memory.
    """
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        module = FAMILIES[net.kind](net)
        module.apply(_he_initialise)
    return module.to(memory_format=memory_format(net.dims))  # type: ignore[call-overload,no-any-return]


def memory_format(dims: int) -> torch.memory_format:
    """Channels last: what matrix units (AMX, tensor cores) want."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def _he_initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def weights_of(module: nn.Module) -> Weights:
    """Every parameter and buffer as a numpy array, by name."""
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in module.state_dict().items()
    }


def filled(net: Network, weights: Weights) -> nn.Module:
    """The network that ``net`` describes with these weights, in evaluation mode; nothing is drawn
    first.

    Raises:
        BundleError: the weights do not fit.
    """
    with torch.device("meta"):
        module = FAMILIES[net.kind](net)
    _refuse_misfit(module, weights, _fitting(module, weights))
    module.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, assign=True
    )
    return module.eval().to(memory_format=memory_format(net.dims))  # type: ignore[call-overload,no-any-return]


def load_weights(module: nn.Module, weights: Weights, strict: bool = True) -> list[str]:
    """Fill ``module`` from arrays; with ``strict=False`` only those whose name and shape fit.

    Returns:
        Names that were left as they were.

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
    """Names of the weights that fit the module in name and shape."""
    own = module.state_dict()
    return {
        name
        for name, array in weights.items()
        if name in own and tuple(own[name].shape) == tuple(array.shape)
    }


def _refuse_misfit(module: nn.Module, weights: Weights, fits: set[str]) -> None:
    """BundleError where a weight is missing, or one is left over."""
    wrong = [name for name in module.state_dict() if name not in fits] or sorted(
        set(weights) - fits
    )
    if wrong:
        raise BundleError(
            f"the weights do not fit the plan's network: {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )


def parameters(module: nn.Module) -> int:
    """How many learnt numbers."""
    return sum(p.numel() for p in module.parameters())

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

FAMILIES: dict[str, Callable[[Network], nn.Module]] = {"unet": UNet, "denseunet": DenseUNet, "vnet": VNet, "quicknat": QuickNAT}


def build(net: Network, seed: int | None = None) -> nn.Module:
    """The network that ``net`` describes, with weights drawn from ``seed`` (He 2015), in channels-last memory."""
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
    return {name: tensor.detach().cpu().contiguous().numpy().copy() for name, tensor in module.state_dict().items()}


def load_weights(module: nn.Module, weights: Weights, strict: bool = True) -> list[str]:
    """Fill ``module`` from arrays; with ``strict=False`` only those whose name and shape fit.

    Returns:
        Names that were left as they were.

    Raises:
        BundleError: names or shapes differ and ``strict`` is set.
    """
    own = module.state_dict()
    fits = {n: torch.from_numpy(np.array(a)) for n, a in weights.items() if n in own and tuple(own[n].shape) == tuple(a.shape)}
    left = [n for n in own if n not in fits]
    if strict and (left or len(fits) != len(weights)):
        wrong = left or sorted(set(weights) - set(fits))
        raise BundleError(
            f"the weights do not fit the plan's network: {', '.join(wrong[:3])}" + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )
    module.load_state_dict(fits, strict=False)
    return left


def parameters(module: nn.Module) -> int:
    """How many learnt numbers."""
    return sum(p.numel() for p in module.parameters())

"""The whole state of a training in one safetensors file, written in one step; no pickle.

Tensors: ``model.*`` and ``ema.*`` (parameters and buffers) and ``optimiser.INDEX.KEY``, whatever
the optimiser keeps (momentum, both moments, AMSGrad's maximum). Everything else is JSON in the
file's metadata. Random streams need no saving: every step draws its own (see ``patches``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core import atomic
from ..core.errors import InputError


def save(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write everything; ``state`` is plain data.

    Raises:
        OutputError: it cannot be written; the checkpoint before stays.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {
        f"ema.{k}": v for k, v in ema.state_dict().items()
    }
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in slots.items()}
    own = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic.replacing(path) as temporary:
        save_file(own, temporary, metadata={"state": json.dumps(state)})


def load(
    path: Path, model: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Fill all three and give the state back.

    Raises:
        InputError: damaged, or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # The file is no mapping.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state: dict[str, Any] = json.loads(file.metadata()["state"])
        model.load_state_dict(_below(tensors, "model."))
        ema.load_state_dict(_below(tensors, "ema."))
    except (SafetensorError, RuntimeError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"the checkpoint is damaged or of another network ({error}); start anew with "
            "--overwrite",
            path=path,
        ) from error
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(
        {"state": slots, "param_groups": optimiser.state_dict()["param_groups"]}
    )
    # As the parameter lies in memory: other kernels would round otherwise.
    for (
        parameter,
        kept,
    ) in optimiser.state.items():
        kept |= {
            k: torch.empty_like(parameter).copy_(v)
            for k, v in kept.items()
            if torch.is_tensor(v) and v.shape == parameter.shape
        }
    return state


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

"""The complete state of a training in one safetensors file, replaced atomically; no pickle.

The file has a digest, and the one before it is kept: a damaged file costs the steps since that.

Tensors: ``model.*`` and ``ema.*`` (parameters and buffers), and ``optimiser.INDEX.KEY``, the state
of the optimiser (momentum, both moments, AMSGrad's maximum). Everything else is JSON in the
metadata of the file. Random streams are not saved: every step draws its own (see ``patches``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from ..core.bundle import NO_DIGEST, load_tensors, save_tensors
from ..core.errors import InputError
from ..core.inputs import parse_json
from ..core.progress import Say, unsaid


def save(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write a checkpoint; ``state`` is JSON data.

    Raises:
        OutputError: it cannot be written; the previous checkpoint is kept.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {
        f"ema.{k}": v for k, v in ema.state_dict().items()
    }
    # torch numbers the parameters of an optimiser in their order in its groups.
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in slots.items()}
    own = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    save_tensors(path, save_bytes(own, NO_DIGEST | {"state": json.dumps(state)}))


def load(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimiser: torch.optim.Optimizer,
    say: Say = unsaid,
) -> dict[str, Any]:
    """Load a checkpoint into model, average and optimiser; returns ``state``.

    Args:
        say: receives a sentence if the file is damaged and the one before it is loaded.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    try:
        raw, metadata = load_tensors(path, say)
        tensors = load_bytes(raw)
        state: dict[str, Any] = parse_json(metadata["state"])
        model.load_state_dict(_below(tensors, "model."))
        ema.load_state_dict(_below(tensors, "ema."))
    except InputError as error:
        raise InputError(f"{error.message}; start again with --overwrite", path=path) from error
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"the checkpoint is damaged or belongs to another network ({error}); start again with "
            "--overwrite",
            path=path,
        ) from error
    # The groups are those of the new optimiser; the file has only the state of each parameter.
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(
        {"state": slots, "param_groups": optimiser.state_dict()["param_groups"]}
    )
    # Give each tensor the memory layout of its parameter. With another layout torch would choose
    # other kernels, which round differently.
    for parameter, kept in optimiser.state.items():
        kept |= {
            k: torch.empty_like(parameter).copy_(v)
            for k, v in kept.items()
            if torch.is_tensor(v) and v.shape == parameter.shape
        }
    return state


def state_in(path: Path, say: Say = unsaid) -> dict[str, Any]:
    """The state of a checkpoint alone.

    Raises:
        InputError: the file is damaged.
    """
    state: dict[str, Any] = parse_json(load_tensors(path, say)[1]["state"])
    return state


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

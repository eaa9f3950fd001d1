"""Small plans for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from delineate.core.labels import LabelSet
from delineate.core.plan import (
    Augmentation,
    Channel,
    Network,
    Normalisation,
    Plan,
    Schedule,
    Structure,
)
from delineate.training.augmentation import change_intensity

NAMES = {1: "left part", 2: "right part"}


def small_network(dims: int = 3, **changes: Any) -> Network:
    flat = 1 if dims == 2 else 2
    base = {
        "dims": dims,
        "channels": 1,
        "classes": 3,
        "widths": (8, 16, 16),
        "strides": ((2, 2, flat), (2, 2, flat)),
        "kernels": ((3, 3, 1 if dims == 2 else 3),) * 3,
    }
    return Network(**{**base, **changes})


def small_plan(dims: int = 3, names: dict[int, str] | None = None, **changes: Any) -> Plan:
    labels = LabelSet.from_names(names or NAMES)
    base = {
        "channels": (Channel(name="MR", normalise=Normalisation(kind="none")),),
        "structures": tuple(Structure(**d) for d in labels.to_json()),
        "spacing_mm": (1.0, 1.0, 1.0),
        "patch": (16, 16, 1 if dims == 2 else 16),
        "network": small_network(dims, classes=len(labels) + 1),
        "schedule": Schedule(epochs=2, steps_per_epoch=3),
        "augmentation": Augmentation(mirror=(0,)),
    }
    return Plan(**{**base, **changes})


def intensity_changed(image: Tensor, aug: Augmentation, rng: np.random.Generator) -> Tensor:
    """The image (C, *patch) after ``change_intensity`` with the plan's changes ``aug``."""
    dims = 2 if image.shape[3] == 1 else 3
    label = torch.zeros(image.shape[1:], dtype=torch.int64)
    return change_intensity(image, label, small_plan(dims, augmentation=aug), rng)[0]

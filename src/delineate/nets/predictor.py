"""One scan through a model: prepare, windows, restore, postprocess; nothing of files.

Volume --prepare--> (C, I, J, K) --windows--> slabs of class scores --restore--> labels on the scan's own grid
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ..core.plan import Inference
from ..core.prediction import Prediction
from ..core.volume import Volume
from ..ops.prepare import prepare, restore
from ..ops.regions import keep_largest
from .infer import Engine, marching_axis, slabs


def predict(volume: Volume, engine: Engine, bundle_id: str = "", inference: Inference | None = None) -> Prediction:
    """Delineate one scan.

    Args:
        volume: (I, J, K) or (C, I, J, K) with the plan's channels, any orientation and spacing.
        inference: instead of the plan's, to switch mirroring.

    Returns:
        Labels on exactly ``volume.grid``.

    Raises:
        InputError: another number of channels than the plan takes.
    """
    began = time.perf_counter()
    plan = engine.plan
    structures = plan.labels
    scan, trail = prepare(volume, plan)
    prepared = time.perf_counter()
    values = np.array([0, *structures.values], dtype=structures.dtype)
    axis = marching_axis(scan.shape[1:], plan)
    with torch.inference_mode():
        array = restore(slabs(scan, engine, inference), trail, axis, values)
    for name in plan.postprocessing.keep_largest:
        keep_largest(array, structures.named(name).value)
    ended = time.perf_counter()
    timing = {"prepare": prepared - began, "infer_and_restore": ended - prepared, "total": ended - began}
    meta: dict[str, Any] = {key: volume.meta[key] for key in ("modality", "spacing_known") if key in volume.meta}
    return Prediction(Volume(array, volume.grid, "label", volume.source, meta), structures, bundle_id, timing)

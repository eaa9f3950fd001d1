"""Prediction: segmented structures on exactly the grid of the input, and how they were computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LabelError
from .labels import LabelSet, unique_values, value_counts
from .volume import Volume

RECORD = "predictions.json"  # in the folder of predictions: what was made, and of what
PROBABILITY_ONE = 65535  # the integer that represents probability 1

# Maps of the samples' disagreement -> the value that is shown brightest: that of a voxel that is in
# the structure in half of the samples.
MAPS = {"entropy": math.log(2), "sd": 0.5}


@dataclass(frozen=True, eq=False)
class Prediction:
    """The segmentation of one scan by a model.

    Args:
        labels: (I, J, K) label volume on the grid of the input; its values are 0 and those of
            ``structures``, or codes if these may overlap (``LabelSet``).
        structures: the meaning of the label values.
        bundle_id: id of the model.
        timing: seconds of each stage ("prepare", "infer", "total").
        uncertainty: structure -> summary of its Monte-Carlo dropout samples (see
            ``trust.uncertainty``); empty if none were requested.
        missing: channels of the model that the scan lacks.
        probabilities: (structures + 1, I, J, K) uint16 in steps of 1 / ``PROBABILITY_ONE``, of the
            background and then of each structure in the order of ``structures``; None if not
            requested. They are the network's, before any postprocessing of the labels.
        samples: (I, J, K) label values of each Monte-Carlo dropout sample, kept until
            ``uncertainty`` has been computed from them, or longer if requested.
        maps: name -> (I, J, K) float32: "entropy" and "sd" of the samples in each voxel (see
            ``inference.sample_maps``); those that were requested.
        windows: of the network, "run" and "all"; empty if no coarse pass left any out.

    Raises:
        LabelError: a label value that no structure has.
    """

    labels: Volume
    structures: LabelSet
    bundle_id: str = ""
    timing: dict[str, float] = field(default_factory=dict)
    uncertainty: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    probabilities: NDArray[np.uint16] | None = field(default=None, repr=False)
    samples: tuple[NDArray[Any], ...] = field(default=(), repr=False)
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    windows: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.structures
        allowed = range(known.codes) if known.overlapping else (0, *known.values)
        unknown = set(unique_values(self.labels.array)) - {*allowed}
        if unknown:
            raise LabelError(f"label values {sorted(unknown)} of a prediction have no structure")

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each structure in ml; 0 if it was not found."""
        counted, voxel_ml = value_counts(self.labels.array), self.labels.grid.voxel_ml
        values, counts = np.array([*counted], np.intp), np.array([*counted.values()], np.int64)
        return {
            label.name: float(counts[self.structures.inside(values, label)].sum()) * voxel_ml
            for label in self.structures
        }

    def to_json(self) -> dict[str, Any]:
        """The entry in ``predictions.json``."""
        entry: dict[str, Any] = {
            "volumes_ml": {k: round(v, 4) for k, v in self.volumes_ml.items()},
            "bundle": self.bundle_id,
            "seconds": {k: round(v, 3) for k, v in self.timing.items()},
        }
        if self.uncertainty:
            entry["uncertainty"] = self.uncertainty
        if self.windows:
            entry["windows"] = self.windows
        if self.missing:
            entry["missing"] = list(self.missing)
        return entry

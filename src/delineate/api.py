"""The Python door: ``load`` a model, ``read`` a scan, ``predict``, ``save``.

import delineate as dl
model = dl.load("liver.model")
prediction = model.predict(dl.read("CT/"))
prediction.save("liver.nii.gz")
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from .core import prediction as core_prediction
from .core.bundle import Bundle
from .core.labels import LabelSet
from .core.volume import Volume
from .formats import files


class Prediction(core_prediction.Prediction):
    """A prediction that can be saved."""

    def save(self, path: str | Path) -> None:
        """Write the label volume; the format follows the ending (.nii.gz, .nii, .nrrd, .mha, .png)."""
        files.write(self.labels, path, labels=self.structures)


class Model:
    """A bundle and, once asked to predict, its networks on a device."""

    def __init__(self, bundle: Bundle, device: str = "auto"):
        self.bundle = bundle
        self._device = device

    @property
    def labels(self) -> LabelSet:
        """The structures it delineates."""
        return self.bundle.labels

    @property
    def id(self) -> str:
        """16 hex digits from plan and weights."""
        return self.bundle.id

    @cached_property
    def _engine(self) -> Any:
        from .nets.infer import Engine, choose_device

        return Engine.from_bundle(self.bundle, choose_device(self._device))

    def predict(self, volume: Volume, *, mirror: bool = False) -> Prediction:
        """Delineate one scan, on exactly its grid.

        Args:
            volume: (I, J, K) or (C, I, J, K) with the model's channels; see ``read``.
            mirror: average over mirror images along the axes that training mirrored; slower, often a little better.

        Raises:
            InputError: another number of channels than the model takes.
        """
        from .nets import predictor

        inference = self.bundle.plan.inference
        if mirror:
            inference = inference.model_copy(update={"mirror": self.bundle.plan.augmentation.mirror})
        found = predictor.predict(volume, self._engine, self.bundle.id, inference)
        return Prediction(found.labels, found.structures, found.bundle_id, found.timing)


def load(path: str | Path, device: str = "auto") -> Model:
    """Load and verify a model; no code in it is run, and no network is built before the first prediction.

    Raises:
        InputError: no such file. BundleError: damaged, changed, or not a model.
    """
    return Model(Bundle.load(path), device)


def read(path: str | Path, *, spacing_mm: tuple[float, ...] | None = None) -> Volume:
    """Read a file, a DICOM folder, or a folder of slices; see ``formats.files.read``."""
    return files.read(path, spacing_mm=spacing_mm)


def write(volume: Volume, path: str | Path) -> None:
    """Write a volume; the format follows the ending."""
    files.write(volume, path)

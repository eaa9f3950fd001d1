"""The Python interface: ``load`` a model, ``read`` a scan, ``predict``, ``save``.

import delineate as dl
model = dl.load("liver.model")
prediction = model.predict(dl.read("CT/"))
prediction.save("liver.nii.gz")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core import prediction as core_prediction
from ..core.bundle import Bundle, graphs_beside
from ..core.errors import InputError, UsageError
from ..core.labels import LabelSet
from ..core.terms import is_known_channel, match_channels
from ..core.volume import Volume
from ..formats import files


class Prediction(core_prediction.Prediction):
    """A prediction that can be saved."""

    def save(self, path: str | Path) -> None:
        """Write the label volume; the format follows the ending (.nii.gz, .nii, .nrrd, .mha,
        .png).
        """
        files.write(self.labels, path, labels=self.structures)


class Model:
    """A bundle and, from the first prediction on, its networks on a device."""

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        graphs: Path | None = None,
        precision: str = "auto",
    ):
        from ..commands.predict import PRECISIONS
        from ..inference.devices import refuse_unknown

        refuse_unknown(device)
        if precision not in PRECISIONS:
            raise UsageError(
                f"precision must be one of {', '.join(PRECISIONS)}, found {precision!r}"
            )
        self.bundle = bundle
        self._device, self._precision = device, precision
        self._graphs = graphs  # folder of compiled networks
        self._engines: dict[tuple[str, ...], Any] = {}

    @property
    def labels(self) -> LabelSet:
        """The structures that it segments."""
        return self.bundle.labels

    @property
    def id(self) -> str:
        """16 hex digits from plan and weights."""
        return self.bundle.id

    def _engine(self, views: tuple[str, ...] = ()) -> Any:
        from ..inference.devices import choose_device
        from ..inference.engine import DTYPES, Engine

        if views not in self._engines:
            self._engines[views] = Engine.from_bundle(
                self.bundle,
                choose_device(self._device),
                DTYPES[self._precision],
                views,
                graphs=self._graphs,
            )
        return self._engines[views]

    def predict(
        self,
        volume: Volume,
        *,
        mirror: bool | None = None,
        views: Sequence[str] = (),
        samples: int = 0,
        seed: int = 0,
        channels: Sequence[str] | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Segment one scan, on exactly its grid.

        Args:
            volume: (I, J, K) or (C, I, J, K) with the model's channels; see ``read``.
            mirror: True averages over mirror images along the axes that training mirrored (slower,
                often a little better), False does not, None follows the model's plan.
            views: only these views ("axial", "coronal", "sagittal") of a model with several; ()
                uses all.
            samples: number of Monte-Carlo dropout samples; ``uncertainty`` of the result gives
                their agreement for each structure.
            seed: of the samples.
            channels: names of the channels of ``volume``, in its order, if it lacks some of the
                model's.
            probabilities: also give the probability of each structure in each voxel; see
                ``Prediction``.

        Raises:
            InputError: the number of channels differs from the model's.
            UsageError: unknown views or channels; samples of a model without dropout; missing
                channels for a model that was not trained with missing channels.
        """
        from ..commands.predict import measured
        from ..inference import predictor

        inference = predictor.with_mirroring(self.bundle.plan, mirror)
        drawn = predictor.DropoutSamples(samples, str(seed))
        present = None if channels is None else self._present(channels)
        if channels is None:
            volume = self._ordered(volume)
        found = measured(
            predictor.predict(
                volume,
                self._engine(tuple(views)),
                self.bundle.id,
                inference,
                samples=drawn,
                present=present,
                probabilities=probabilities,
            )
        )
        return Prediction(
            found.labels,
            found.structures,
            found.bundle_id,
            found.timing,
            found.uncertainty,
            found.missing,
            found.probabilities,
        )

    def _ordered(self, volume: Volume) -> Volume:
        """The volume with its channels in the model's order, if it names them; without names they
        must be in that order already.

        Raises:
            InputError: it names channels that the model does not have.
        """
        wanted = [c.name for c in self.bundle.plan.channels]
        names = volume.meta.get("channels", [])
        if (
            len(wanted) < 2
            or len(names) != volume.channels
            or not any(map(is_known_channel, names))
        ):
            return volume
        at = match_channels(names, wanted)
        if None in at:
            raise InputError(
                f"the scan has the channels {', '.join(names)}, the model needs "
                f"{', '.join(wanted)}",
                path=volume.source or None,
            )
        order = [n for n in at if n is not None]
        if order == list(range(len(names))):
            return volume
        return replace(
            volume.with_array(volume.array[order]),
            meta=volume.meta | {"channels": [names[n] for n in order]},
        )

    def _present(self, channels: Sequence[str]) -> list[int]:
        wanted = [c.name for c in self.bundle.plan.channels]
        at = match_channels(wanted, list(channels))
        unknown = [name for name, n in zip(channels, at, strict=True) if n is None]
        if unknown or not channels:
            given = (
                f"has no channel {', '.join(unknown)}" if unknown else "needs at least one channel"
            )
            raise UsageError(
                f"the model {given}; its channels are "
                f"{', '.join(c.name for c in self.bundle.plan.channels)}"
            )
        return [n for n in at if n is not None]


def load(path: str | Path, device: str = "auto", precision: str = "auto") -> Model:
    """Load and verify a model. No code in it is run, and networks are built at the first
    prediction.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto" (half precision if the device has units for it), "float32", or "int8" for
            a model that ``quantise`` has calibrated.

    Raises:
        InputError: no such file.
        BundleError: damaged, changed, or not a model.
        UsageError: an unknown device or precision.
    """
    return Model(Bundle.load(path), device, graphs_beside(path), precision)


def read(path: str | Path, *, spacing_mm: tuple[float, ...] | None = None) -> Volume:
    """Read a file, a DICOM folder, or a folder of slices; see ``formats.files.read``."""
    return files.read(path, spacing_mm=spacing_mm)


def write(volume: Volume, path: str | Path) -> None:
    """Write a volume; the format follows the ending."""
    files.write(volume, path)

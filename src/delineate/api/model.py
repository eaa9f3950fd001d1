"""Model: a trained model for use in Python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.bundle import Bundle, Member, graphs_beside
from ..core.errors import InputError, UsageError
from ..core.labels import LabelSet
from ..core.terms import contradicts_modality, is_known_channel, match_channels
from ..evaluation.training_verdict import Verdict
from ..extend.registers import load_bundle
from ..extras import require_extra
from .prediction import Prediction
from .volume import ImageLike, Volume

if TYPE_CHECKING:
    import torch

    from ..core.plan import Network, Plan


class Model:
    """A bundle and, from the first prediction on, its networks on a device. It can be pickled; the
    copy builds its networks again on the device that was requested.

    >>> model = load("liver.model", device="cpu")
    >>> model.labels.names, model.plan.dims, model.id == model.bundle.id
    (['left part', 'right part'], 3, True)
    >>> model.card["seed"], sorted(model.modules), model.module.training
    (0, ['fold_0'], False)
    >>> model.predict("ct.nii.gz").shape
    (16, 14, 12)
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        graphs: Path | None = None,
        precision: str = "auto",
    ):
        from ..commands.options import PRECISIONS
        from ..inference.devices import refuse_unknown

        if not isinstance(bundle, Bundle):
            raise UsageError(
                f"Model needs a Bundle, found {type(bundle).__name__}; delineate.load(path) reads "
                "a model's file"
            )
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

    @property
    def plan(self) -> Plan:
        """All settings of the training and of the prediction."""
        return self.bundle.plan

    @property
    def card(self) -> dict[str, Any]:
        """How the model was trained and how well it did, as plain data."""
        return dict(self.bundle.card)

    @property
    def module(self) -> torch.nn.Module:
        """The torch network of the model's only member, on the CPU, in evaluation mode.

        Raises:
            UsageError: the model averages several networks; see ``modules``.
        """
        own = self.bundle.segmenting
        if len(own) != 1:
            names = ", ".join(member.name for member in own)
            raise UsageError(f"the model averages several networks ({names}): use modules")
        return self.modules[own[0].name]

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """Name of each member -> its torch network, on the CPU, in evaluation mode."""
        require_extra("torch", "a torch network")
        from ..networks.build import filled

        return {
            member.name: filled(_network_of(self.bundle.plan, member), member.weights)
            for member in self.bundle.members
        }

    def __repr__(self) -> str:
        plan = self.bundle.plan
        kind = f"{plan.dims}-D {plan.network.kind}"
        return f"Model({self.id}, {kind}: {', '.join(self.labels.names)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_engines": {}}

    def _engine(self, views: tuple[str, ...] = ()) -> Any:
        from ..inference.devices import device_for
        from ..inference.engine import DTYPES, Engine

        if views not in self._engines:
            self._engines[views] = Engine.from_bundle(
                self.bundle,
                device_for(self._device),
                DTYPES[self._precision],
                views,
                graphs=self._graphs,
            )
        return self._engines[views]

    def predict(
        self,
        image: ImageLike,
        *,
        mirror: bool | None = None,
        overlap: float | None = None,
        coarse: bool | None = None,
        views: Sequence[str] = (),
        oblique_deg: float = 0.0,
        samples: int = 0,
        maps: Sequence[str] = (),
        keep_samples: bool = False,
        seed: int = 0,
        channels: Sequence[str] | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Segment one scan, on exactly its grid.

        Args:
            image: the scan with the model's channels: a path, a ``Volume``, an image of nibabel or
                SimpleITK, or a pair (array, affine); (I, J, K) or (C, I, J, K).
            mirror: True averages over mirror images along the axes that training mirrored (slower,
                often a little better), False does not, None follows the model's plan.
            overlap: the fraction that neighbouring windows share; less is faster. None: the plan's.
            coarse: False runs all windows, where a model would leave some out; None: the plan's.
            views: only these ("axial", "coronal", "sagittal") of a model with several; () uses all.
            oblique_deg: a 2-D model also sees planes tilted by this angle, and averages.
            samples: of Monte-Carlo dropout, whose agreement is ``uncertainty``.
            maps: "entropy" and "sd" of the samples in each voxel, as ``maps`` of the result.
            keep_samples, seed: also give each sample's label map as ``samples``; their seed.
            channels: names of the channels of ``image``, in its order, if it lacks some of the
                model's, or if the name of its file suggests another image.
            probabilities: of each structure in each voxel too; see ``Prediction``.

        Raises:
            InputError: another number of channels, or another image by its header or file name.
            UsageError: unknown views or channels; an overlap, angle, samples or missing channels
                that the model does not allow.
        """
        require_extra("predict", "Model.predict")
        self._warn_unusable()
        from ..commands.predict import measured
        from ..inference import oblique, predictor

        oblique.refuse_unfit(self.bundle.plan, oblique_deg)
        present = None if channels is None else self._present(channels)
        volume = self._read(image) if present is not None else self._ordered(self._read(image))
        found = measured(
            predictor.predict(
                volume,
                replace(self._engine(tuple(views)), oblique_deg=oblique_deg),
                self.bundle.id,
                predictor.settings_of(self.bundle.plan, mirror, overlap, coarse),
                samples=predictor.DropoutSamples(samples, str(seed), tuple(maps)),
                present=present,
                probabilities=probabilities,
            ),
            keep_samples,
        )
        return Prediction.of(found)

    def _read(self, image: ImageLike) -> Volume:
        """The volume; of a model with one channel that is SUV, a path is read as SUV."""
        from ..formats import files

        if isinstance(image, str | Path) and [c.unit for c in self.bundle.plan.channels] == ["suv"]:
            return Volume.of(files.read(image, unit="suv"))
        return Volume.of(image)

    def _warn_unusable(self) -> None:
        verdict = Verdict.from_json(self.bundle.card.get("verdict"))
        if not verdict.is_usable:
            warnings.warn(verdict.warning, stacklevel=3)

    def _ordered(self, volume: Volume) -> Volume:
        """The volume with its channels in the model's order, if it names them; without names they
        must be in that order already.

        Raises:
            InputError: it names channels that the model does not have, or is another image by its
                header or the name of its file.
        """
        from ..cohorts.discovery.channels import other_image

        wanted = [c.name for c in self.bundle.plan.channels]
        names = volume.meta.get("channels", [])
        if len(wanted) == 1:
            modality = str(volume.meta.get("modality", ""))
            wrong = modality if contradicts_modality(modality, wanted[0]) else ""
            if wrong := wrong or (other_image(volume.source, wanted[0]) if volume.source else ""):
                raise InputError(
                    f"is {wrong} by its header or name, the model needs {wanted[0]}; if it is "
                    f"{wanted[0]}, state it with channels=[{wanted[0]!r}]",
                    path=volume.source,
                )
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


def _network_of(plan: Plan, member: Member) -> Network:
    """The architecture of one member: of a cascade's first stage, of a view, or the plan's own."""
    if member.first_stage and plan.low_resolution is not None:
        return plan.low_resolution.network
    return plan.seen(plan.named_views()[member.view]).network if member.view else plan.network


def load(path: str | Path, device: str = "auto", precision: str = "auto") -> Model:
    """Load and verify a model. No code in it is run, and networks are built at the first
    prediction.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto" ("int8" where a training measured it as equal and the CPU has units for
            it, else "float"), "float" (half precision if the device has units for it), "float32",
            or "int8" for a model that ``train`` or ``quantise`` has calibrated.

    Raises:
        InputError: no such file.
        BundleError: damaged, changed, or not a model.
        UsageError: an unknown device or precision.

    >>> load("liver.model", device="cpu")
    Model(..., 3-D unet: left part, right part)
    """
    return Model(load_bundle(path), device, graphs_beside(path), precision)

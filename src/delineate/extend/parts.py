"""The parts that can be registered: what each one needs, and what it promises.

Every part is frozen and names all that is needed of it. Shapes: B samples, C channels, L classes
with 0 for background, *space 2-D or 3-D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.manifest import Manifest
from ..core.plan import Loss, Network, Optimiser, Plan
from ..core.scores import declare
from ..core.terms import Coding
from ..core.volume import Volume
from .findings import Draft

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MetricColumn:
    """One number that a metric gives for each structure: its unit ("" for a ratio), which values
    are better (``HIGHER``, ``LOWER``, ``NEARER_ZERO`` or ``NO_JUDGEMENT``), and its definition.

    Raises:
        TypeError: no definition.
    """

    unit: str
    better: str
    definition: str

    def __post_init__(self) -> None:
        if not self.definition.strip():
            raise TypeError("a metric needs a definition")


@dataclass(frozen=True)
class Metric:
    """A metric that ``evaluate --also NAME`` computes; several columns may share one function.

    Args:
        columns: name of each number -> its meaning; names are unique among all metrics.
        measure: (prediction, truth, spacing_mm) -> value of every column. The masks are (I, J, K)
            bool, cropped to both structures; NaN means not defined, such as for two empty masks.

    Raises:
        TypeError: no column, or an unknown or contradictory direction (see ``core.scores``).
    """

    columns: Mapping[str, MetricColumn]
    measure: Callable[[Mask, Mask, Sequence[float]], Mapping[str, float]]

    def __post_init__(self) -> None:
        if not self.columns:
            raise TypeError("a metric needs at least one column")
        for name, column in self.columns.items():
            declare(name, column.better)


@dataclass(frozen=True)
class NetworkKind:
    """A network architecture; ``network.kind`` of a plan names it.

    Args:
        build: makes the module of the plan's ``Network``: (B, C, *space) float32 -> class scores
            (B, L, *space) before softmax, or a list of them, finest first, for deep supervision.
            *space is that of the plan's patch, divisible by ``Network.divisor``; 2-D or 3-D.
        definition: one sentence, with the source.
    """

    build: Callable[[Network], nn.Module]
    definition: str


@dataclass(frozen=True)
class LossTerm:
    """A loss term of class scores.

    Args:
        cost: (class scores (B, L, *space) float32, true classes (B, *space) int64) -> scalar.
        definition: one sentence, with the source.
    """

    cost: Callable[[Tensor, Tensor], Tensor]
    definition: str


@dataclass(frozen=True)
class VoxelTerm:
    """A loss term that is a mean over voxels and uses the voxel weights of the plan.

    Args:
        cost: (log-probabilities (B, L, *space), true classes, voxel weights (B, *space) or None,
            loss) -> scalar.
        definition: one sentence, with the source.
    """

    cost: Callable[[Tensor, Tensor, Tensor | None, Loss], Tensor]
    definition: str


@dataclass(frozen=True)
class StructureTerm:
    """A loss term that compares whole structures.

    Args:
        cost: (for each group, per class (L,): sum(p g), sum(p), sum(g); loss) -> scalar.
        definition: one sentence, with the source.
        squares: the term uses sum(p^2) for ``Loss.squared``.
    """

    cost: Callable[[list[tuple[Tensor, Tensor, Tensor]], Loss], Tensor]
    definition: str
    squares: bool = False


@dataclass(frozen=True)
class Augmentation:
    """A random change of a training patch.

    Args:
        change: (image (C, *patch) float32, classes (*patch), random generator, plan) -> both,
            changed. Every random number must come from the generator, so that a run can be resumed
            exactly. A 2-D patch has one voxel along its last axis.
        definition: one sentence.
    """

    change: Callable[[Tensor, Tensor, np.random.Generator, Plan], tuple[Tensor, Tensor]]
    definition: str


@dataclass(frozen=True)
class OptimiserKind:
    """An optimiser; ``optimiser.kind`` of a plan names it.

    Args:
        make: (module, settings of the plan, dtype of large matrix products) -> optimiser. Its state
            must consist of tensors and numbers, which the checkpoints store.
        definition: one sentence, with the source.
    """

    make: Callable[[nn.Module, Optimiser, torch.dtype], torch.optim.Optimizer]
    definition: str


@dataclass(frozen=True)
class Names:
    """Names of channels and structures: identity -> further names of it.

    An identity that is not known yet ("T1 MARS") is added. The side is no part of the name of a
    structure. Case, accents and separators make no difference.

    Args:
        channels, structures: the names.
        codes: identity of a structure -> its codes in DICOM objects.
    """

    channels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    structures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    codes: Mapping[str, Coding] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """Names of channels and structures that discovery, ``predict`` and ``evaluate`` recognise.

    Args:
        names: gives the names; called once.
        definition: one sentence, with the source.
    """

    names: Callable[[], Names]
    definition: str


class FolderTree(Protocol):
    """The folders of a cohort; each is read from the disk once. Hidden names are left out."""

    def files(self, folder: Path) -> list[Path]:
        """The files of a folder in natural order."""
        ...

    def folders(self, folder: Path) -> list[Path]:
        """The folders of a folder in natural order."""
        ...


# From specific to general; the first tier in which a layout matches wins.
Tier = Literal["described", "challenge", "folders", "channels", "pairs", "files", "on request"]
TIERS: tuple[Tier, ...] = get_args(Tier)


@dataclass(frozen=True)
class Layout:
    """An arrangement of scans and masks in folders.

    Args:
        find: (tree, folder) -> the cases, or None if the folder has another layout. It recognises
            files by their names and opens as few as possible.
        definition: the tree in one sentence, such as "images/ID.nii.gz with labels/ID.nii.gz".
        tier: how specific the layout is, see ``TIERS``; "on request" is used only if it is named.
    """

    find: Callable[[Any, Path], Draft | None]
    definition: str
    tier: Tier = "challenge"

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise TypeError(f"a tier is one of {', '.join(TIERS)}; found {self.tier!r}")


@dataclass(frozen=True)
class Format:
    """A file format of volumes.

    Args:
        detect: whether a file starts like this format, from its first bytes (unpacked if gzip).
        read: the volume of a file, with its grid in RAS+ mm (see ``core.grid``).
        definition: one sentence.
        endings: of its files, such as (".abc",), in small letters.
        write: (volume, path, structures or None) writes a file; None if it is only read.
        writes: the endings that it writes; a subset of ``endings``.
        grid: the grid of a file, if it can be read without the voxels.
    """

    detect: Callable[[bytes], bool]
    read: Callable[[Path], Volume]
    definition: str
    endings: tuple[str, ...]
    write: Callable[[Volume, Path, LabelSet | None], None] | None = None
    writes: tuple[str, ...] = ()
    grid: Callable[[Path], Grid] | None = None

    def __post_init__(self) -> None:
        if not all(e.startswith(".") and e == e.lower() for e in self.endings):
            raise TypeError(f"endings are small letters after a dot, found {self.endings}")
        if (self.write is None) == bool(self.writes) or not {*self.writes} <= {*self.endings}:
            raise TypeError(
                "a format that writes needs a writer and the endings that it writes, some of its "
                f"endings {self.endings}; found {self.writes}"
            )


class Recorder(Protocol):
    """Follows the training of one network."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Record one line of the log: step, epoch, loss, learning rate; after a validation also
        its scores (docs/reference/formats.md lists the keys)."""
        ...

    def close(self) -> None:
        """End the record; the training has ended or was stopped."""
        ...


@dataclass(frozen=True)
class FollowedRun:
    """The training of one network, as a listener receives it before the first step.

    Args:
        folder: of this network in the run, such as ``liver.model.run/fold_0``.
        name: of the network, such as fold_0.
        model: the file that the run writes.
        plan: of this network.
    """

    folder: Path
    name: str
    model: Path
    plan: Plan


@dataclass(frozen=True)
class Listener:
    """A receiver of the figures of a training run, chosen with ``train --listener NAME``.

    Args:
        follow: called for each network before its first step. An error in it or in its recorder is
            reported once and never stops the training.
        definition: one sentence.
        needs: package that must be installed, such as "mlflow"; checked before the training.
    """

    follow: Callable[[FollowedRun], Recorder]
    definition: str
    needs: str = ""


@dataclass(frozen=True)
class Recipe:
    """A named planner that reproduces a known system.

    Args:
        name: for ``train --recipe``.
        summary: one sentence, with the source.
        plan: (fingerprint, cohort, machine; budget_s, epochs, seed, dims) -> plan.
        adapt: selects from a cohort the structures that the system segments, unless the user chose
            structures (second argument is True), and the channels it uses.
        folds: one of this many parts of the patients is for validation.
    """

    name: str
    summary: str
    plan: Callable[..., Plan]
    adapt: Callable[[Manifest, bool], Manifest] = lambda manifest, has_choice: manifest
    folds: int = 5

"""What a prediction would do (``predict --dry-run``): the scans, their channels, the files that
would be written or replaced, and the time. Nothing is written and no scan is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cohorts.discovery import channels
from ...core.bundle import Bundle
from ...core.errors import UsageError
from ...core.manifest import Case, Manifest
from ...core.plan import Plan
from ...core.words import duration
from ...execution.shards import Shard
from ...extend.registers import load_bundle
from ...formats.dicom.remote import is_remote
from ...inference.devices import device_for
from ..options import PredictOptions, reads_images
from .predict import gather
from .refusals import refuse_unfit
from .results import inputs_of, refuse_foreign, targets_of
from .work_lists import are_lists

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class PlannedCase:
    """One scan: the file of each channel, the files that would be written, those of them that exist
    already, and the channels that it lacks.
    """

    id: str
    inputs: dict[str, str | None]
    outputs: tuple[str, ...]
    existing: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class PredictionOutlook:
    """What a prediction would do.

    Args:
        model: its id.
        cases: in the order in which they would be segmented.
        seconds: for all of them, by the scored cases of the training; None if the model's card does
            not state the time.
        failures: scan -> why it cannot be used.
        notes: one sentence per skipped entry.
    """

    model: str
    cases: tuple[PlannedCase, ...]
    seconds: float | None
    failures: dict[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "cases": [vars(case) for case in self.cases]}

    def sentence(self) -> str:
        """The number of cases, and the time."""
        able = sum(not case.missing for case in self.cases)
        time = "the model's card does not state the time of a case"
        if self.seconds is not None:
            time = f"about {duration(self.seconds)}, if this machine is like that of the training"
        return f"{able} of {len(self.cases) + len(self.failures)} cases would be segmented; {time}"


@reads_images
def outlook(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions,
) -> PredictionOutlook:
    """What ``predict`` would do with these arguments.

    Raises:
        InputError, BundleError, UsageError, OutputError: as ``predict``.
    """
    if are_lists(inputs, out):
        raise UsageError("--dry-run is not for work lists, patterns and URLs")
    if any(map(is_remote, inputs)):
        raise UsageError("--dry-run fetches nothing from an archive; give scans on a disk")
    device_for(options.device, options.backend)
    bundle = load_bundle(model)
    refuse_unfit(options, bundle.plan)
    scans = gather(inputs, bundle, options.only, options.channels, options.fix_series)
    folder, shard = Path(out), Shard.parsed(options.shard)
    plan = bundle.plan
    manifest = scans.manifest.only(case for case in scans.manifest if shard.has(case.id))
    scans.originals.plus([model]).refuse(targets_of(manifest, folder, options, plan))
    refuse_foreign(manifest, folder, options, plan)
    cases = tuple(_planned(case, manifest, folder, options, plan) for case in manifest)
    able = sum(not case.missing for case in cases)
    return PredictionOutlook(
        bundle.id,
        cases,
        None if (each := _case_seconds(bundle)) is None else each * able,
        {name: str(error) for name, error in scans.failures.items() if shard.has(name)},
        scans.notes,
    )


def _planned(
    case: Case, manifest: Manifest, out: Path, options: PredictOptions, plan: Plan
) -> PlannedCase:
    alone = Manifest((case,), manifest.channels, manifest.labels)
    targets = [path for path in targets_of(alone, out, options, plan) if path.stem != "predictions"]
    outputs = [path for path in targets if path.name != "uncertainty.csv"]
    lacking = () if options.allow_missing else channels.missing(case, manifest)
    return PlannedCase(
        case.id,
        inputs_of(case, manifest),
        tuple(str(path) for path in outputs),
        tuple(str(path) for path in outputs if path.exists()),
        tuple(lacking),
    )


def _case_seconds(bundle: Bundle) -> float | None:
    scores = bundle.card.get("scores") or {}
    return float(scores["predict_s"]) if "predict_s" in scores else None


def table(found: PredictionOutlook) -> Table:
    """The cases for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    shown = Table("case", "channels", "writes", "", box=SIMPLE_HEAD, pad_edge=False)
    for case in found.cases:
        given = [f"{name}: {path or 'missing'}" for name, path in case.inputs.items()]
        state = f"lacks {', '.join(case.missing)}" if case.missing else ""
        if case.existing and not case.missing:
            state = f"replaces {len(case.existing)} file{'s' * (len(case.existing) != 1)}"
        names = [Path(path).name for path in case.outputs]
        shown.add_row(case.id, escape("\n".join(given)), escape("\n".join(names)), state)
    return shown

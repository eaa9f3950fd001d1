"""How predict starts: the model, the engine and the head of the record, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cohorts.licence import is_restricted
from ...core.bundle import Bundle
from ...core.manifest import Manifest
from ...core.progress import Progress, Say
from ...evaluation.training_verdict import Verdict
from ...execution import local as batch
from ...execution.claims import Claim
from ...execution.utilisation import Utilisation
from ...inference.devices import Cpu
from ..options import PredictOptions
from .archives import Fetched
from .elsewhere import SegmentCase, run_elsewhere
from .journal import NAME, Journal
from .kept import loaded
from .session import Session

if TYPE_CHECKING:
    import torch

    from ...inference.engine import Engine as Networks


@dataclass(frozen=True)
class PredictionReport:
    """One outcome per case; its value is the entry of ``predictions.json``.

    An outcome with a value and an error is a mask without one of the requested additions.
    """

    out: str | Path
    outcomes: Sequence[batch.Outcome[dict[str, Any]]]

    @property
    def failures(self) -> list[batch.Outcome[dict[str, Any]]]:
        return [o for o in self.outcomes if o.error is not None]

    @property
    def utilisation(self) -> Utilisation | None:
        """Of the networks, for all scans with a mask; None if it was not measured."""
        return Utilisation.of(one.value or {} for one in self.outcomes)

    @property
    def written(self) -> list[batch.Outcome[dict[str, Any]]]:
        """Outcomes with a mask."""
        return [o for o in self.outcomes if o.value is not None]


@dataclass(frozen=True)
class ListReport(PredictionReport):
    """Of a work list: ``outcomes`` are only its first failures; all are in the journal.

    Args:
        done, kept, failed: number of cases that were segmented now, that had their results, and
            that failed.
        place: ``out`` as it was given, which may be a URL.
    """

    done: int
    kept: int
    failed: int
    place: str

    def sentence(self) -> str:
        """The numbers."""
        count = self.done + self.kept + self.failed
        words = f"{self.done + self.kept} of {count} cases have their results in {self.place}"
        more = self.failed - len(self.outcomes)
        return f"{words}; {more} more failed, see {self.place}/{NAME}" if more else words


def opened(model: str | Path | Bundle, say: Say) -> Bundle:
    """The model, with a sentence about its licence and its verdict if they restrict its use."""
    bundle = model if isinstance(model, Bundle) else loaded(model)
    licence = str(bundle.card.get("licence", ""))
    if is_restricted(licence):
        say(f"this model and its masks are restricted in their use; licence {licence}")
    if warning := Verdict.from_json(bundle.card.get("verdict")).warning:
        say(warning)
    return bundle


def segmented(
    bundle: Bundle,
    make: Callable[[], Networks],
    model: str | Path,
    left: Manifest,
    out: Path,
    options: PredictOptions,
    journal: Journal,
    claim: Claim,
    say: Say,
    progress: Progress,
) -> dict[str, batch.Outcome[dict[str, Any]]]:
    """Case -> outcome, of cases that are segmented now, on the engine that is asked for."""
    if (work := options.work).is_here:
        with Session(bundle, make, left, out, options, journal, claim, say, progress) as session:
            outcomes = session.run()
        claim.confirm()
    else:
        function = SegmentCase(bundle, model, replace(left, cases=()), out, options)
        names = [case.id for case in left]
        more = (say, progress, options.spool_bytes)
        outcomes = run_elsewhere(work, function, left.cases, names, journal, claim, *more)
    return {outcome.name: outcome for outcome in outcomes}


def head_of(
    bundle: Bundle,
    device: torch.device | Cpu,
    options: PredictOptions,
    model: str | Path,
    source: Fetched | None,
) -> dict[str, Any]:
    """What the record of a call has apart from its cases."""
    from ...inference import engine as infer

    backend: Any = options.backend
    head = {
        "model": Path(model).name,
        "device": device.type,
        "precision": infer.precision_of(bundle, device, infer.DTYPES[options.precision], backend),
        "options": options,
    }
    if source is not None and source.origins:
        head["archives"] = {place.name: str(one) for place, one in source.origins.items()}
    return head

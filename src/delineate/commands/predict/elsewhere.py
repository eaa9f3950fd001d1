"""Predict on another engine than this process: one case is one session in a worker, or goes through
three workers that read, segment and write it.

The worker keeps the networks from case to case. It writes the results, and gives back the line for
the journal, which this process alone writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import DelineateError
from ...core.inputs import reading_at_most
from ...core.manifest import Case, Manifest
from ...core.prediction import Prediction
from ...core.progress import Progress, Say
from ...execution.claims import Claim
from ...execution.executor import Work
from ...execution.local import Outcome
from ...execution.pool import Stages
from ...execution.utilisation import Meter
from ...trust.plausibility import Ranges
from ..options import PredictOptions, reads_images
from .journal import Journal, digests_of
from .results import of_cases, write_result
from .session import (
    Prefetcher,
    Scan,
    Session,
    engine_maker,
    flags_of,
    segmented_scan,
    written,
)

if TYPE_CHECKING:
    from ...formats.dicom import SourceSeries
    from ...inference import engine as infer


@dataclass(frozen=True)
class Finished:
    """A case whose results are written: its entry, its files with their SHA-256, an error about an
    addition that could not be written, sentences for the user, and the bytes of files in a store.
    """

    entry: dict[str, Any]
    files: Mapping[str, str]
    error: DelineateError | None
    notes: tuple[str, ...]
    nbytes: int | None = None


@dataclass(frozen=True, eq=False)
class Inferred:
    """What the networks make of a scan, with what is needed to write it (see ``session.Scan``)."""

    prediction: Prediction
    series: Mapping[str, SourceSeries | DelineateError]
    flags: list[dict[str, Any]]
    noted: Mapping[str, Any]
    notes: tuple[str, ...]


class CaseFunction(Protocol):
    """The function of one case, which workers call."""

    def __call__(self, item: Any, /) -> Finished:
        """Segment a case."""

    def targets(self, item: Any, /) -> list[Path]:
        """The files that this may write, on the disk."""

    def close(self) -> None:
        """After the last case that this process did with it."""


@dataclass
class SegmentCase:
    """The function of one case, which is sent to workers once.

    Args:
        bundle: the model.
        model: its file, next to which compiled networks are kept; "" keeps none.
        header: the manifest without its cases.
        out: the folder of the results, which all workers see.
        options: see ``commands.options``.
    """

    bundle: Bundle
    model: str | Path
    header: Manifest
    out: Path
    options: PredictOptions
    _networks: infer.Engine | None = field(default=None, repr=False)
    _meter: Meter | None = field(default=None, repr=False)
    _scans: Prefetcher | None = field(default=None, repr=False)

    def __call__(self, case: Case, out: Path | None = None) -> Finished:
        """Segment one case; into another folder than that of the others if ``out`` is given."""
        with reading_at_most(self.options.ram_bytes):
            return _segmented(self, case, self.out if out is None else out, self.options)

    @property
    def stages(self) -> Stages | None:
        """The same in three stages; None with a limit of memory, which one process holds."""
        if self.options.ram_bytes is not None or self.options.vram_bytes is not None:
            return None
        return Stages((self.read, self.segment, self.write))

    def read(self, case: Case) -> Scan:
        """The first stage: read and preprocess a scan."""
        return _read(self, case, self.options)

    def segment(self, case: Case, scan: Scan) -> Inferred:
        """The second stage: run the networks."""
        notes: list[str] = []
        networks, options = self.networks(), self.options
        found = segmented_scan(
            case.id, scan, networks, self.bundle, options, notes.append, self.meter
        )
        ranges = Ranges.from_json(self.bundle.card.get("plausibility"))
        flags = flags_of(scan.seen, found, ranges)
        return Inferred(found, scan.series, flags, scan.noted, tuple(notes))

    def write(self, case: Case, done: Inferred) -> Finished:
        """The third stage: write the results."""
        return _write(self, case, done, self.options)

    def targets(self, case: Case) -> list[Path]:
        """See ``CaseFunction``."""
        alone = replace(self.header, cases=(case,))
        return [*of_cases(alone, self.out, self.options, self.bundle.plan)]

    def begin(self) -> None:
        """Load what is kept, before a worker gets its first case."""
        self.networks()

    def follow(self, case: Case, following: Case) -> None:
        """Read the scan of ``following`` while the networks run on that of ``case``."""
        self._scans = self._scans or Prefetcher(self.header, self.bundle, self.options)
        self._scans.follow(case, following)

    def networks(self) -> infer.Engine:
        """The networks, made at the first case of a worker."""
        from ...inference.devices import device_for

        if self._networks is None:
            device = device_for(self.options.device, self.options.backend)
            self._networks = engine_maker(self.bundle, device, self.options, self.model)()
        self._meter = self._meter or Meter()
        return self._networks

    def close(self) -> None:
        """See ``CaseFunction``; a scan that is read ahead is the next one of the same worker."""
        if self._scans is not None:
            self._scans.close()
            self._scans = None

    @property
    def scans(self) -> Prefetcher | None:
        """Of the worker, if it reads scans ahead."""
        return self._scans

    @property
    def meter(self) -> Meter:
        """Of the worker, whose networks are loaded."""
        self.networks()
        assert self._meter is not None
        return self._meter


class _Line:
    """What a session records, in place of the journal and the claim of the folder."""

    def __init__(self, out: Path):
        self._out = out
        self.files: Mapping[str, str] = {}

    def add(self, case: str, entry: Mapping[str, Any], files: Iterable[Path]) -> None:
        self.files = digests_of(self._out, files)

    def died_at(self, case: Case) -> bool:
        return False

    def begin(self, case: Case) -> None:
        """A worker that dies is noticed where the cases come from."""

    def is_held(self) -> bool:
        return False  # failures are recorded there too

    def confirm(self) -> None:
        """The claim is confirmed before the line is written."""


@reads_images
def _segmented(function: SegmentCase, case: Case, out: Path, options: PredictOptions) -> Finished:
    line: Any = _Line(out)
    notes: list[str] = []
    alone = replace(function.header, cases=(case,))
    with Session(
        function.bundle,
        function.networks,
        alone,
        out,
        options,
        line,
        line,
        notes.append,
        meter=function.meter,
        scans=function.scans,
    ) as session:
        (outcome,) = session.run()
    if outcome.value is None:
        assert outcome.error is not None
        # An unexpected error stays one, so that another worker tries.
        raise RuntimeError(outcome.log) if outcome.log else outcome.error
    return Finished(outcome.value, line.files, outcome.error, tuple(notes))


@reads_images
def _read(function: SegmentCase, case: Case, options: PredictOptions) -> Scan:
    alone = replace(function.header, cases=(case,))
    ahead = Prefetcher(alone, function.bundle, options)
    try:
        return ahead.make(case)
    finally:
        ahead.close()


@reads_images
def _write(function: SegmentCase, case: Case, done: Inferred, options: PredictOptions) -> Finished:
    alone, out = replace(function.header, cases=(case,)), function.out
    entry = write_result(
        case, alone, done.prediction, out, options, done.series, lambda: done.flags, done.noted
    )
    files = digests_of(out, filter(Path.is_file, function.targets(case)))
    ended = written(Outcome(case.id, entry, None, 0.0))
    return Finished(entry, files, ended.error, done.notes)


def run_elsewhere(
    work: Work,
    function: CaseFunction,
    items: Sequence[Any],
    names: Sequence[str],
    journal: Journal,
    claim: Claim,
    say: Say,
    progress: Progress,
    spool_bytes: int | None = None,
) -> list[Outcome[dict[str, Any]]]:
    """Segment cases, the items of the function, on an engine; the outcome of each, in order."""
    by_name = dict(zip(names, items, strict=True))

    def record(outcome: Outcome[Finished]) -> None:
        claim.confirm()
        if outcome.tries > 1:  # workers ended at it
            for path in function.targets(by_name[outcome.name]):
                atomic.remove_temporaries_of(path)
        if outcome.value is None:
            assert outcome.error is not None
            journal.failed(outcome.name, outcome.error)
            return
        for note in outcome.value.notes:
            say(note)
        done = outcome.value
        journal.put(outcome.name, done.entry, done.files, done.nbytes)

    try:
        outcomes = work.run(
            function,
            items,
            names=names,
            # On this machine the networks use all cores.
            workers=1 if work.is_local else None,
            whole_node=True,
            stage="predict",
            progress=progress,
            each=record,
            stages=getattr(function, "stages", None),
            spool_bytes=spool_bytes,
        )
    finally:
        function.close()
    return [
        Outcome(o.name, None, o.error, o.seconds, o.log)
        if o.value is None
        else Outcome(o.name, o.value.entry, o.value.error, o.seconds)
        for o in outcomes
    ]

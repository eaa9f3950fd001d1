"""One call of predict: a loaded model on a cohort, from the first scan to the last result.

While the network runs on one scan, the next one is read and preprocessed, and the last result is
written. If memory is limited, one scan is processed at a time. The network runs in the main thread,
which Ctrl-C can interrupt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...cohorts.discovery import channels
from ...core.bundle import Bundle, graphs_beside
from ...core.errors import DelineateError, InputError, OutputError
from ...core.manifest import ABSENT, Case, Manifest
from ...core.prediction import Prediction
from ...core.progress import Progress, Say, silent, unsaid
from ...execution import local as batch
from ...execution.claims import Claim
from ...execution.utilisation import Meter
from ...formats import files
from ...preprocessing import arrays
from ...trust.plausibility import Ranges, ScanSample, flags, measure, sample
from ...trust.uncertainty import agreement
from ..options import PredictOptions
from .journal import Journal
from .kept import networks
from .objects import series_of
from .results import READ, of_cases, read_scan, write_result

if TYPE_CHECKING:
    import torch

    from ...core.volume import Volume
    from ...formats.dicom import SourceSeries
    from ...inference.devices import Cpu
    from ...inference.engine import Engine
    from ...inference.predictor import PreparedScan


class Session:
    """Applies a model to a cohort; a context manager, in which ``run`` is called once.

    Args:
        bundle: the model.
        make: gives its networks on a device; called while the first scan is read.
        manifest: the scans, in the order in which they are read.
        out: the folder of the results.
        options: see ``commands.options``.
        journal: receives a line for each case whose results are written.
        claim: on ``out``; once it is lost, nothing more is written.
        say: receives a sentence about what cannot be written, before the network runs.
        progress: receives the number of cases done, with the share of the current one.
        meter, scans: of the worker, if it has several sessions with the same networks.
    """

    def __init__(
        self,
        bundle: Bundle,
        make: Callable[[], Engine],
        manifest: Manifest,
        out: Path,
        options: PredictOptions,
        journal: Journal,
        claim: Claim,
        say: Say = unsaid,
        progress: Progress = silent,
        meter: Meter | None = None,
        scans: Prefetcher | None = None,
    ):
        self._meter = meter
        self._bundle, self._make, self._manifest = bundle, make, manifest
        self._out, self._options, self._say = out, options, say
        self._journal, self._claim, self._progress = journal, claim, progress
        self._ranges = Ranges.from_json(bundle.card.get("plausibility"))
        self._done = 0
        self._owns_scans = scans is None
        self._prefetcher = scans or Prefetcher(manifest, bundle, options, self._read)
        self._writer = BackgroundWriter(options)

    def __enter__(self) -> Session:
        if self._owns_scans:
            self._prefetcher.begin()
        try:
            self._engine = self._make()
            self._meter = self._meter or Meter()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._owns_scans:
            self._prefetcher.close()
        self._writer.close()

    def run(self) -> list[batch.Outcome[dict[str, Any]]]:
        """Every case's outcome, in the manifest's order: its entry of ``predictions.json``."""
        names = [case.id for case in self._manifest]
        begun = batch.run(
            self._case,
            self._manifest.cases,
            names=names,
            workers=1,
            stage="predict",
            progress=self._ended,
            each=self._recorded,
        )
        return [
            self._recorded(written(outcome))
            if isinstance(outcome.value, Future)
            else written(outcome)
            for outcome in begun
        ]

    def _recorded(self, outcome: batch.Outcome[Any]) -> batch.Outcome[Any]:
        """The outcome, after a line of the journal if it is a failure. One that failed before it
        was written has its line at once.
        """
        if outcome.value is None and outcome.error is not None and self._claim.is_held():
            self._journal.failed(outcome.name, outcome.error)
        return outcome

    def _case(self, case: Case) -> Any:
        """Segment one case; gives its entry, or a future of it while it is being written."""
        self._claim.confirm()
        memory_bytes = self._memory(case)
        began = time.perf_counter()
        scan = self._prefetcher(case)
        assert self._meter is not None
        prediction = segmented_scan(
            case.id,
            scan,
            self._engine,
            self._bundle,
            self._options,
            self._say,
            self._meter,
            time.perf_counter() - began,
            memory_bytes=memory_bytes,
            progress=lambda stage, done, total, note: self._progress(
                stage, self._done + done / total, len(self._manifest), f"{case.id}, {note}"
            ),
        )
        series, seen, noted = scan.series, scan.seen, scan.noted
        # Frees the scan's memory for the next one.
        del scan
        return self._writer(
            partial(
                self._written,
                case,
                partial(
                    write_result,
                    case,
                    self._manifest,
                    prediction,
                    self._out,
                    self._options,
                    series,
                    partial(flags_of, seen, prediction, self._ranges),
                    noted,
                ),
            )
        )

    def _read(self, case: Case, manifest: Manifest) -> Volume:
        """The scan; in a process of its own if an earlier call ended at it, so that a reader that
        crashes costs its case and no more.
        """
        died = self._journal.died_at(case) and not self._options.again
        self._journal.begin(case)
        if died:
            self._say(
                f"case {case.id}: an earlier call ended at it; its scan is read in a process of "
                "its own (--again reads it in this one)"
            )
            read = partial(read_scan, manifest=replace(manifest, cases=(case,)))
            outcome = batch.run_apart(read, case, case.id, self._options.ram_bytes)
            if outcome.value is not None:
                return outcome.value
            # A program that starts no processes (no ``if __name__``) ends them with an exit code.
            if outcome.error is not None and (outcome.exitcode is None or outcome.exitcode < 0):
                raise outcome.error
        return read_scan(case, manifest)

    def _written(self, case: Case, write: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Write the results of a case, and then its line of the journal; gives its entry."""
        self._claim.confirm()
        entry = write()
        alone = replace(self._manifest, cases=(case,))
        targets = of_cases(alone, self._out, self._options, self._bundle.plan)
        self._journal.add(case.id, entry, filter(Path.is_file, targets))
        return entry

    def _ended(self, stage: str, done: float, total: float, note: str) -> None:
        self._done = int(done)
        self._progress(stage, done, total, note)

    def _memory(self, case: Case) -> int | None:
        """Bytes that sums of class scores may take under the limits; None without a limit. A case
        that needs more memory is refused before it is read.
        """
        from ...inference.memory_limits import MemoryLimits, memory_for_sums, need_of

        limits = MemoryLimits(self._options.ram_bytes, self._options.vram_bytes)
        if limits == MemoryLimits():
            return None
        source = next(image for image in case.images if image != ABSENT)
        grid = files.read_grid(source)
        need = need_of(grid, self._engine.plan, self._engine)
        # Label maps of all samples; two maps in float32, and the sum of squares.
        each = self._options.samples + (12 if self._options.maps else 0)
        need = replace(need, inferring=need.inferring + each * math.prod(grid.shape))
        return memory_for_sums(limits, need, self._engine, case.id)


def engine_maker(
    bundle: Bundle, device: torch.device | Cpu, options: PredictOptions, model: str | Path
) -> Callable[[], Engine]:
    """A function that gives the engine. If a backend is requested, which may not support the
    network, or memory is limited, the engine is made here.

    Raises:
        UsageError: see ``Engine.from_bundle``.
    """
    from ...inference import engine as infer
    from ...inference import memory_limits

    dtype = infer.DTYPES[options.precision]
    is_limited = options.ram_bytes is not None or options.vram_bytes is not None
    infer.refuse_unfit(bundle, dtype, options.views)

    graphs = graphs_beside(model) if model else None
    what = (bundle.id, str(device), dtype, tuple(options.views), options.backend)

    def make() -> Engine:
        engine = networks(
            (str(graphs), *what, arrays.threads()),
            lambda: infer.Engine.from_bundle(
                bundle,
                device,
                dtype,
                options.views,
                backend=options.backend,  # type: ignore[arg-type]
                graphs=graphs,
            ),
        )
        if is_limited:
            memory_limits.warm_up(engine)
        # Samples build the networks once more, and a bundle of the caller is its own.
        if model and not options.samples:
            bundle.release_weights()
        return replace(engine, oblique_deg=options.oblique_deg)

    if options.backend == "auto" and options.precision != "int8" and not is_limited:
        return make
    made = make()
    return lambda: made


@dataclass(frozen=True, eq=False)
class Scan:
    """A preprocessed scan, what was measured of it before, kind of DICOM object -> the series that
    it refers to, or why there can be none, and what the reader noted (``results.READ``).
    """

    ready: PreparedScan
    seen: ScanSample
    series: Mapping[str, SourceSeries | DelineateError] = field(default_factory=dict)
    noted: Mapping[str, Any] = field(default_factory=dict)


def segmented_scan(
    case: str,
    scan: Scan,
    engine: Engine,
    bundle: Bundle,
    options: PredictOptions,
    say: Say,
    meter: Meter,
    scan_s: float | None = None,
    **how: Any,
) -> Prediction:
    """The prediction for a preprocessed scan.

    Args:
        say: receives a sentence about what cannot be written.
        meter, scan_s: of the worker; see there.
        how: for ``predictor.segment``.
    """
    from ...inference.predictor import DropoutSamples, segment, settings_of

    refused: dict[str, list[str]] = {}
    for kind, found in scan.series.items():
        if isinstance(found, DelineateError):
            refused.setdefault(str(found), []).append(kind)
    for why, kinds in refused.items():
        say(f"no {', '.join(kinds)} can be written: {why}; the mask is written without it")
    waited = meter.begin(scan_s)
    prediction = segment(
        scan.ready,
        engine,
        bundle.id,
        settings_of(bundle.plan, options.mirror, options.overlap, options.coarse),
        samples=DropoutSamples(options.samples, f"{options.seed} {case}", options.maps),
        probabilities=options.needs_probabilities,
        **how,
    )
    meter.end()
    return replace(measured(prediction), timing=prediction.timing | waited)


class Prefetcher:
    """Reads and preprocesses the scans of a cohort in order, each while the network runs on the one
    before; one at a time if memory is limited.
    """

    def __init__(
        self,
        manifest: Manifest,
        bundle: Bundle,
        options: PredictOptions,
        read: Callable[[Case, Manifest], Volume] = read_scan,
    ):
        self._manifest, self._bundle, self._options = manifest, bundle, options
        self._read = read
        self._next = (
            {}
            if options.ram_bytes is not None
            else {case.id: following for case, following in pairwise(manifest)}
        )
        self._waiting: dict[str, Future[Scan]] = {}
        # One thread: the other cores run the network.
        self._pool = ThreadPoolExecutor(1, "ahead")

    def __call__(self, case: Case) -> Scan:
        waiting = self._waiting.get(case.id)
        self._waiting.clear()  # of a case that did not come
        try:
            return self.make(case) if waiting is None else waiting.result()
        finally:
            if case.id in self._next:
                following = self._next[case.id]
                self._waiting[following.id] = self._pool.submit(self.make, following)

    def follow(self, case: Case, following: Case) -> None:
        """Read ``following`` after ``case``, in place of what follows in the manifest."""
        if self._options.ram_bytes is None:
            self._next = {case.id: following}

    def begin(self) -> None:
        """Read the first scan ahead."""
        if self._options.ram_bytes is None:
            for case in self._manifest.cases[:1]:
                self._waiting[case.id] = self._pool.submit(self.make, case)

    def make(self, case: Case) -> Scan:
        """Read and preprocess one scan."""
        from ...inference.predictor import preprocess_scan

        lacking = channels.missing(case, self._manifest)
        if lacking and not self._options.allow_missing:
            raise _refusal(case, self._manifest, lacking)
        present = [n for n, image in enumerate(case.images) if image != ABSENT] if lacking else None
        volume = self._read(case, self._manifest)
        if self._options.mask_form == "png" and volume.grid.shape[2] != 1:
            raise OutputError(
                f"a PNG holds one slice, the scan has {volume.grid.shape[2]}; choose another "
                "--format",
                case=case.id,
                path=case.path,
            )
        kinds = self._options.objects
        series = series_of(case, self._bundle.id, self._bundle.labels, kinds) if kinds else {}
        seen = sample(volume)
        return Scan(
            preprocess_scan(volume, self._bundle.plan, present, self._options.skip_air),
            seen,
            series,
            {key: deepcopy(volume.meta[key]) for key in READ if key in volume.meta},
        )

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class BackgroundWriter:
    """Writes each result while the network runs on the next case; immediately if memory is
    limited.
    """

    def __init__(self, options: PredictOptions):
        self._last: Future[Any] | None = None
        self._pool = (
            None
            if options.ram_bytes is not None
            else ThreadPoolExecutor(1, thread_name_prefix="behind")
        )

    def __call__(
        self, write: Callable[[], dict[str, Any]]
    ) -> Future[dict[str, Any]] | dict[str, Any]:
        if self._pool is None:
            return write()
        if self._last is not None:
            # At most one finished result is kept in memory.
            wait([self._last])
        self._last = self._pool.submit(write)
        return self._last

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def written(begun: batch.Outcome[Any]) -> batch.Outcome[dict[str, Any]]:
    """The outcome of a case after its result is written; with an error too if an addition to the
    mask could not be written.
    """
    ended = begun
    if isinstance(begun.value, Future):
        ended = batch.attempt(Future.result, begun.value, begun.name)
        ended = replace(ended, seconds=begun.seconds + ended.seconds)
    lacking = {} if ended.value is None else ended.value.get("not_written", {})
    if not lacking:
        return ended
    words = "; ".join(f"no {what} was written: {why}" for what, why in lacking.items())
    return replace(ended, error=OutputError(f"{words} (its mask is written)", case=begun.name))


def _refusal(case: Case, manifest: Manifest, lacking: Sequence[str]) -> InputError:
    there = ", ".join(
        f"{name} ({image.path})"
        for name, image in zip(manifest.channels, case.images, strict=True)
        if image != ABSENT
    )
    return InputError(
        f"channel {', '.join(lacking)} is missing; the model needs "
        f"{', '.join(manifest.channels)}, found {there}; "
        "with --allow-missing a model trained with missing channels can segment such a scan",
        case=case.id,
    )


def flags_of(
    seen: ScanSample, prediction: Prediction, ranges: Ranges | None
) -> list[dict[str, Any]]:
    """What is implausible about a prediction, or unlike the training cases."""
    return flags(measure(seen, prediction.labels, prediction.structures), ranges)


def measured(prediction: Prediction, keep_samples: bool = False) -> Prediction:
    """The prediction with statistics of its samples for each structure, instead of the samples
    unless they are kept; unchanged if it has none.
    """
    if not prediction.samples:
        return prediction
    names, values = prediction.structures.names, prediction.structures.values
    rows = agreement(prediction.samples, values, prediction.labels.grid.voxel_ml)
    found = {
        name: {k: v for k, v in asdict(row).items() if k != "value"}
        for name, row in zip(names, rows, strict=True)
    }
    kept = prediction.samples if keep_samples else ()
    return replace(prediction, uncertainty=found, samples=kept)

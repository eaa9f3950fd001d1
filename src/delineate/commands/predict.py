"""Predicting: scans in, delineated structures out, each on exactly its scan's grid.

Writes ``OUT/CASE.nii.gz`` (or another format) and ``OUT/predictions.json`` with every input file,
volumes in ml, seconds, peak memory and the model's id; with samples ``OUT/uncertainty.csv`` as
well. Cases are delineated one at a time, while the next is read and prepared and the last is
written; one that fails is listed and the others are still done. Nothing is written over a scan.
What an addition to the mask (a DICOM SEG, probabilities, a picture) cannot do is reported, and
costs neither the mask nor its record.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..cohorts.discovery import channels
from ..cohorts.discovery.originals import originals
from ..cohorts.discovery.scans import Scans, collect
from ..cohorts.reading import read_image
from ..core import atomic
from ..core.bundle import Bundle, graphs_beside
from ..core.errors import DelineateError, InputError, OutputError, UsageError
from ..core.manifest import ABSENT, Case, Manifest, Source
from ..core.outputs import Originals
from ..core.plan import Inference
from ..core.prediction import Prediction
from ..core.schema import SCHEMAS, migrate
from ..core.scores import without_nan
from ..core.volume import Volume
from ..execution import local as batch
from ..formats import files
from ..inference.devices import choose_device
from ..trust.uncertainty import agreement

if TYPE_CHECKING:
    from ..formats.dicom.seg import SegSource
    from ..inference.predictor import Ready

FORMATS = ("nii.gz", "nii", "nrrd", "mha", "png")
BACKENDS = ("auto", "openvino", "torch")
MONTAGES = ("outlined", "filled")
PRECISIONS = ("auto", "float32", "int8")
# Columns of uncertainty.csv.
UNCERTAINTY = (
    "case",
    "structure",
    "volume_ml",
    "mean_ml",
    "std_ml",
    "cv",
    "iou",
    "found_in",
)

Say = Callable[[str], None]
# Cases done (with the share of the running one), cases in all, note.
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Options:
    """How to predict, beyond what the model's plan says.

    Args:
        device: "auto", "cpu" or "cuda".
        mirror: test-time mirroring along the axes that training mirrored; None does what the plan
            says.
        form: one of ``FORMATS``.
        dicom_seg: write a DICOM SEG beside each result whose scan is a DICOM series.
        views: only these views of a model that has several; all where empty.
        samples: so many Monte-Carlo dropout samples of each case, for their spread; 0 takes none.
        seed: of the samples; each one's stream follows from it, the case's id and the sample's
            number.
        allow_missing: delineate scans that lack some of the model's channels too.
        backend: "auto" takes the fastest that is here and knows the network, "torch" or "openvino"
            that one.
        precision: "auto" computes in half precision where the device has units for it, "float32"
            never; "int8" rounds to 8-bit integers what the model has bounds for (see
            ``commands.quantise``).
        ram_bytes, vram_bytes: what the process and its GPU may use, from reading to the written
            file; a case that needs more is refused with the least that works. None is no limit.
        skip_air: do not ask the network about what is more than 3 cm outside the body of a CT.
        montage: also write montages/CASE.png, three planes with the structures "outlined" or
            "filled".
        probabilities: also write probabilities/CASE.nii.gz, (I, J, K, structures + 1) with the
            background first.
    """

    device: str = "auto"
    mirror: bool | None = None
    form: str = "nii.gz"
    dicom_seg: bool = False
    views: tuple[str, ...] = ()
    samples: int = 0
    seed: int = 0
    allow_missing: bool = False
    backend: str = "auto"
    precision: str = "auto"
    ram_bytes: int | None = None
    vram_bytes: int | None = None
    skip_air: bool = False
    montage: str | None = None
    probabilities: bool = False


@dataclass(frozen=True)
class Predicted:
    """What came out: one outcome a case, its value the entry of ``predictions.json``.

    An outcome with a value and an error is a mask that was written without something that was asked
    for beside it.
    """

    out: Path
    outcomes: Sequence[batch.Outcome[dict[str, Any]]]

    @property
    def failures(self) -> list[batch.Outcome[dict[str, Any]]]:
        return [o for o in self.outcomes if o.error is not None]

    @property
    def written(self) -> list[batch.Outcome[dict[str, Any]]]:
        """Those whose mask was written."""
        return [o for o in self.outcomes if o.value is not None]


def predict(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    only: str | None = None,
    stated: Mapping[str, str] | None = None,
    say: Say = lambda text: None,
    progress: Progress | None = None,
    **options: Any,
) -> Predicted:
    """Delineate every scan of ``inputs``.

    Args:
        model: a bundle.
        inputs: files, DICOM folders, folders of cases, or manifests.
        out: folder for the results; made where missing.
        only: "train", "val" or "test": that part of a cohort that is split.
        stated: channel of the model -> the file that holds it (then without ``inputs``), or what
            the inputs call it.
        say: is given a sentence about each thing that was skipped or cannot be written.
        options: the fields of ``Options``.

    Returns:
        An outcome for each scan, those that could not be used included.

    Raises:
        InputError, BundleError, UsageError: nothing could be done at all.
        OutputError: an output would take the place of a file that is read; nothing was done.
    """
    choose_device(str(options.get("device", Options.device)))  # refused before anything is read
    bundle = Bundle.load(model)
    scans = gather(inputs, bundle, only, stated)
    for note in scans.notes:
        say(note)
    outcomes = predict_cases(
        bundle,
        scans.manifest,
        out,
        model=model,
        kept=scans.originals,
        unusable=scans.failures,
        say=say,
        progress=progress,
        **options,
    )
    return Predicted(Path(out), outcomes)


def predict_cases(
    bundle: Bundle,
    manifest: Manifest,
    out: str | Path,
    *,
    model: str | Path = "",
    kept: Originals | None = None,
    unusable: Mapping[str, DelineateError] | None = None,
    say: Say = lambda text: None,
    progress: Progress | None = None,
    **options: Any,
) -> Sequence[batch.Outcome[dict[str, Any]]]:
    """Delineate the cases of ``manifest`` with a bundle in memory; arguments as for ``predict``.
    Compiled networks are kept beside ``model``.

    Args:
        kept: files that nothing is written over; those of ``manifest`` where not given.
        unusable: name -> why, of scans that were found and cannot be used; they are recorded as
            failures.
    """
    from ..inference import memory_limits as limits
    from ..inference.engine import DTYPES, Engine
    from ..inference.predictor import (
        Samples,
        refuse_missing,
        refuse_overlapping,
        refuse_unless_ct,
        with_mirroring,
    )

    asked = Options(**options)
    if asked.form not in FORMATS:
        raise UsageError(f"results are written as {', '.join(FORMATS)}, not {asked.form!r}")
    Samples(asked.samples).refuse_unless_fit(bundle.plan)
    if asked.allow_missing:
        refuse_missing(bundle.plan)
    if asked.skip_air:
        refuse_unless_ct(bundle.plan)
    if asked.probabilities:
        refuse_overlapping(bundle.plan)
        if asked.ram_bytes is not None:
            raise UsageError(
                "probabilities take two bytes a voxel and structure, which --ram does not count: "
                "give one of both"
            )
    for given, allowed in (
        (asked.backend, BACKENDS),
        (asked.precision, PRECISIONS),
        (asked.montage or MONTAGES[0], MONTAGES),
    ):
        if given not in allowed:
            raise UsageError(f"allowed are {', '.join(allowed)}, not {given!r}")

    folder = Path(out)
    guarded = (originals([manifest]) if kept is None else kept).plus([model] if model else [])
    guarded.refuse(_targets(manifest, folder, asked))
    _refuse_foreign(manifest, folder, asked)
    engine = Engine.from_bundle(
        bundle,
        choose_device(asked.device),
        DTYPES[asked.precision],
        asked.views,
        backend=asked.backend,  # type: ignore[arg-type]
        graphs=graphs_beside(model) if model else None,
    )
    if asked.ram_bytes is not None or asked.vram_bytes is not None:
        limits.warm_up(engine)
    head = {"model": Path(model).name, "device": engine.device.type, "options": asked}
    at = _Place(progress or (lambda done, total, note: None), len(manifest))
    with guarded.kept():
        atomic.make_folder(folder)
        # From now on the folder is ours, whatever becomes of this call.
        _record(folder, bundle, head, [])
        with (
            contextlib.closing(_Ahead(manifest, bundle, asked)) as ahead,
            contextlib.closing(_Behind(asked)) as behind,
        ):
            job = partial(
                predict_case,
                manifest=manifest,
                engine=engine,
                bundle_id=bundle.id,
                inference=with_mirroring(bundle.plan, asked.mirror),
                out=folder,
                options=asked,
                tell=at.tell,
                ready=ahead,
                write=behind,
                say=say,
            )
            begun = batch.run(
                job, manifest.cases, names=[c.id for c in manifest], workers=1, progress=at.ended
            )
            outcomes = [_written(outcome) for outcome in begun]
        outcomes += [
            batch.Outcome(name, None, error, 0.0) for name, error in (unusable or {}).items()
        ]
        _record(folder, bundle, head, outcomes)
    return outcomes


def _targets(manifest: Manifest, out: Path, options: Options) -> Iterator[Path]:
    """Every file that may be written."""
    yield from (out / name for name in ("predictions.json", "uncertainty.csv"))
    for case in manifest:
        yield out / f"{case.id}.{options.form}"
        if options.dicom_seg:
            yield out / f"{case.id}.seg.dcm"
        if options.probabilities:
            yield out / "probabilities" / f"{case.id}.nii.gz"
        if options.montage:
            yield out / "montages" / f"{case.id}.png"


@dataclass
class _Place:
    """How far the cases are: whole ones as they end, and the share of the one at work."""

    progress: Progress
    total: int
    done: int = field(default=0)

    def ended(self, done: int, total: int, name: str) -> None:
        self.done = done
        self.progress(done, total, name)

    def tell(self, share: float, note: str) -> None:
        self.progress(self.done + share, self.total, note)


class _Ahead:
    """The scans of a cohort in their order, the next one read and prepared while this one is
    delineated; one at a time where memory is limited.
    """

    def __init__(self, manifest: Manifest, bundle: Bundle, options: Options):
        import torch

        self._manifest, self._bundle, self._options = manifest, bundle, options
        self._next = (
            {}
            if options.ram_bytes is not None
            else {case.id: following for case, following in pairwise(manifest)}
        )
        self._waiting: dict[str, Future[_Scan]] = {}
        self._threads = torch.get_num_threads()
        # The others are at work on the scan before.
        self._pool = ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (1,))

    def __call__(self, case: Case) -> _Scan:
        waiting = self._waiting.pop(case.id, None)
        try:
            return self._make(case) if waiting is None else waiting.result()
        finally:
            if case.id in self._next:
                following = self._next[case.id]
                self._waiting[following.id] = self._pool.submit(self._make, following)

    def _make(self, case: Case) -> _Scan:
        from ..inference.predictor import make_ready

        lacking = channels.missing(case, self._manifest)
        if lacking and not self._options.allow_missing:
            raise _refusal(case, self._manifest, lacking)
        present = [n for n, image in enumerate(case.images) if image != ABSENT] if lacking else None
        volume = read_scan(case, self._manifest)
        if self._options.form == "png" and volume.grid.shape[2] != 1:
            raise OutputError(
                f"a PNG holds one slice, the scan has {volume.grid.shape[2]}; choose another "
                "--format",
                case=case.id,
                path=case.path,
            )
        seg, why_no_seg = None, None
        if self._options.dicom_seg:
            try:
                seg = _seg_source(case, self._bundle)
            except DelineateError as error:
                why_no_seg = error.of_case(case.id)
        return _Scan(
            make_ready(volume, self._bundle.plan, present, self._options.skip_air), seg, why_no_seg
        )

    def close(self) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)  # what threads to come begin with


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan made ready, and the series that its DICOM SEG refers to, or why there can be none."""

    ready: Ready
    seg: SegSource | None = None
    why_no_seg: DelineateError | None = None


class _Behind:
    """Results written while the next case is delineated, one at a time; at once where memory is
    limited.
    """

    def __init__(self, options: Options):
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
            # So that no more than one result is held beside the one that is made.
            wait([self._last])
        self._last = self._pool.submit(write)
        return self._last

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _written(begun: batch.Outcome[Any]) -> batch.Outcome[dict[str, Any]]:
    """The outcome of a case once its result is written; with an error too where something beside
    the mask is not.
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


def read_scan(case: Case, manifest: Manifest) -> Volume:
    """The scan of a case, of the channels that it has."""
    return read_image(*channels.only_present(case, manifest))


def gather(
    inputs: Sequence[str | Path],
    bundle: Bundle,
    only: str | None = None,
    stated: Mapping[str, str] | None = None,
) -> Scans:
    """All scans of ``inputs`` with the model's channels; arguments and errors as of
    ``cohorts.discovery.scans.collect``.

    A scan that lacks some of several channels is kept, with ``ABSENT`` in their place.
    """
    wanted = [c.name for c in bundle.plan.channels]
    return collect(
        inputs, wanted, bundle.labels, numbered=_numbered(bundle.card), only=only, stated=stated
    )


def _numbered(card: Mapping[str, Any]) -> channels.Numbered:
    """How the training of a model told channels apart that had no names of their own; cards that do
    not say it name the layout.
    """
    if "channels_numbered" in card:
        return card["channels_numbered"]  # type: ignore[no-any-return]
    if card.get("imported") or card.get("layout") == "nnunet-raw":
        return "files"
    return "one file" if card.get("layout") == "decathlon" else ""


def predict_case(
    case: Case,
    manifest: Manifest,
    engine: Any,
    bundle_id: str,
    inference: Inference,
    out: Path,
    options: Options,
    ready: Callable[[Case], _Scan],
    write: Callable[[Callable[[], dict[str, Any]]], Any],
    tell: Callable[[float, str], None] = lambda share, note: None,
    say: Say = lambda text: None,
) -> Any:
    """Delineate one case that ``ready`` reads and prepares.

    Gives what ``write`` makes of the function that writes it: the case's entry of
    ``predictions.json``, or a future of that.
    """
    from ..inference.predictor import Samples, delineate

    memory_bytes = _memory(case, engine, options)
    scan = ready(case)
    if scan.why_no_seg is not None:
        say(f"no DICOM SEG can be written: {scan.why_no_seg}; the mask is written without it")
    prediction = measured(
        delineate(
            scan.ready,
            engine,
            bundle_id,
            inference,
            samples=Samples(options.samples, f"{options.seed} {case.id}"),
            memory_bytes=memory_bytes,
            probabilities=options.probabilities,
            tell=lambda share, note: tell(share, f"{case.id}, {note}"),
        )
    )
    seg = scan.seg if scan.why_no_seg is None else scan.why_no_seg
    del scan  # its memory is free for what follows
    return write(partial(_write, case, manifest, prediction, bundle_id, out, options, seg))


def _write(
    case: Case,
    manifest: Manifest,
    prediction: Prediction,
    bundle_id: str,
    out: Path,
    options: Options,
    seg: SegSource | DelineateError | None,
) -> dict[str, Any]:
    """Write the mask, then what was asked for beside it; gives the case's entry of
    ``predictions.json``.

    What cannot be written beside the mask stands in the entry under "not_written", with its reason.
    """
    target = out / f"{case.id}.{options.form}"
    files.write(prediction.labels, target, labels=prediction.structures)
    entry: dict[str, Any] = {
        "file": target.name,
        "input": case.path,
        "inputs": _inputs(case, manifest),
        **prediction.to_json(),
        "peak_memory_mb": peak_memory_mb(),
    }
    additions: dict[str, Callable[[], str]] = {}
    if options.dicom_seg:
        additions["dicom_seg"] = lambda: _write_seg(case, prediction, out, bundle_id, seg)
    if options.probabilities:
        additions["probabilities"] = lambda: _write_probabilities(case, prediction, out)
    if options.montage:
        additions["montage"] = lambda: _write_montage(
            case, manifest, prediction, out, options.montage or MONTAGES[0]
        )
    for what, write in additions.items():
        try:
            entry[what] = write()
        except DelineateError as error:
            entry.setdefault("not_written", {})[what] = error.message
    return entry


def _inputs(case: Case, manifest: Manifest) -> dict[str, str | None]:
    """Channel -> the file or folder it was read from, ``FOLDER#SERIES`` of a series among several;
    None for one that the scan lacks.
    """
    images = (
        case.images
        if len(case.images) == len(manifest.channels)
        else case.images * len(manifest.channels)
    )

    def place(image: Source) -> str | None:
        if image == ABSENT:
            return None
        return (
            f"{image.path}#{image.series}" if image.series and "#" not in image.path else image.path
        )

    return {name: place(image) for name, image in zip(manifest.channels, images, strict=True)}


def _write_montage(
    case: Case, manifest: Manifest, prediction: Prediction, out: Path, style: str
) -> str:
    from ..reporting.pictures import montage

    image = read_scan(case, manifest)  # again: so far its memory was free for the sums
    target = out / "montages" / f"{case.id}.png"
    montage(
        image,
        {"prediction": prediction.labels},
        prediction.structures,
        target,
        title=case.id,
        filled=style == "filled",
    )
    return f"montages/{target.name}"


def _write_probabilities(case: Case, prediction: Prediction, out: Path) -> str:
    from ..formats import nifti
    from ..preprocessing.prepare import PROBABILITY_ONE

    assert prediction.probabilities is not None  # they were asked for
    target = out / "probabilities" / f"{case.id}.nii.gz"
    nifti.write(
        Volume(prediction.probabilities, prediction.labels.grid), target, step=1 / PROBABILITY_ONE
    )
    return f"probabilities/{target.name}"


def _memory(case: Case, engine: Any, options: Options) -> int | None:
    """What sums of scores may take under the limits; a case that cannot be done under them is
    refused before it is read.
    """
    from ..inference.memory_limits import Limits, memory_for_sums, need_of

    if options.ram_bytes is None and options.vram_bytes is None:
        return None
    source = next(image for image in case.images if image != ABSENT)
    grid = files.read_grid(source)
    return memory_for_sums(
        Limits(options.ram_bytes, options.vram_bytes),
        need_of(grid, engine.plan, engine),
        engine,
        case.id,
    )


def _refusal(case: Case, manifest: Manifest, lacking: Sequence[str]) -> InputError:
    there = ", ".join(
        f"{name} ({image.path})"
        for name, image in zip(manifest.channels, case.images, strict=True)
        if image != ABSENT
    )
    return InputError(
        f"channel {', '.join(lacking)} is missing; the model takes "
        f"{', '.join(manifest.channels)}, found {there}; "
        "a model that was trained for it delineates such a scan with --allow-missing",
        case=case.id,
    )


def measured(prediction: Prediction) -> Prediction:
    """The prediction with what its samples say of each structure in the place of the samples;
    unchanged where it has none.
    """
    if not prediction.samples:
        return prediction
    names, values = prediction.structures.names, prediction.structures.values
    rows = agreement(prediction.samples, values, prediction.labels.grid.voxel_ml)
    found = {
        name: {k: v for k, v in asdict(row).items() if k != "value"}
        for name, row in zip(names, rows, strict=True)
    }
    return replace(prediction, uncertainty=found, samples=())


def _seg_source(case: Case, bundle: Bundle) -> SegSource:
    """The series that the case's DICOM SEG will refer to, proved to take one before anything is
    delineated.

    Raises:
        InputError: the scan is not one DICOM series, or the series lacks what a SEG must repeat.
    """
    from ..formats.dicom import find_series
    from ..formats.dicom.seg import seg_source

    source = next(image for image in case.images if image != ABSENT)
    series = (
        [s for s in find_series(Path(source.path)) if not source.series or s.uid == source.series]
        if Path(source.path).is_dir()
        else []
    )
    if len(series) != 1:
        raise InputError(
            "a DICOM SEG needs a scan that is one DICOM series", case=case.id, path=source.path
        )
    return seg_source(series[0].files, bundle.labels, **_algorithm(bundle.id))


def _write_seg(
    case: Case,
    prediction: Prediction,
    out: Path,
    bundle_id: str,
    seg: SegSource | DelineateError | None,
) -> str:
    from ..formats.dicom.seg import write_seg

    if seg is None or isinstance(seg, DelineateError):
        raise seg or InputError(
            "a DICOM SEG needs a scan that is one DICOM series", case=case.id, path=case.path
        )
    target = out / f"{case.id}.seg.dcm"
    write_seg(prediction.labels, prediction.structures, seg, target, **_algorithm(bundle_id))
    return target.name


def _algorithm(bundle_id: str) -> dict[str, Any]:
    return {"algorithm_name": f"delineate model {bundle_id}", "algorithm_version": __version__}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB.

    Linux's own count of the process: the one of ``getrusage`` begins with that of whoever started
    it. Windows has no ``getrusage``.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            return round(
                next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
                * 1024
                / 1e6,
                1,
            )
    try:
        import resource
    except ImportError:
        import psutil

        memory = psutil.Process().memory_info()
        return round(float(getattr(memory, "peak_wset", memory.rss)) / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _record(
    folder: Path,
    bundle: Bundle,
    head: dict[str, Any],
    outcomes: Sequence[batch.Outcome[dict[str, Any]]],
) -> None:
    """Write ``predictions.json``, and ``uncertainty.csv`` where cases were sampled; entries of
    earlier calls into the same folder stay.
    """
    path, asked = folder / "predictions.json", head["options"]
    cases = _earlier(path)
    for outcome in outcomes:
        cases[outcome.name] = (
            {"error": str(outcome.error)} if outcome.value is None else outcome.value
        )
    record = {
        "delineate_predictions": SCHEMAS["delineate_predictions"],
        "delineate": __version__,
    }
    record |= {key: value for key, value in head.items() if key != "options"} | {
        "bundle": bundle.id,
        "labels": bundle.labels.to_json(),
        "peak_memory_mb": peak_memory_mb(),
    }
    record |= {"precision": asked.precision} if asked.precision != "auto" else {}
    record |= {"views": list(asked.views)} if asked.views else {}
    record |= {"samples": asked.samples, "seed": asked.seed} if asked.samples else {}
    cases = without_nan(cases)
    atomic.write_text(path, json.dumps(without_nan(record | {"cases": cases}), indent=1))
    if any("uncertainty" in entry for entry in cases.values()):
        atomic.write_text(folder / "uncertainty.csv", _csv(cases))


def _refuse_foreign(manifest: Manifest, out: Path, options: Options) -> None:
    """Refuse results where files of their names stand that are no results: predict writes over its
    own alone.

    Raises:
        OutputError: such a file, or one called predictions.json that is no record of predictions.
    """
    record = out / "predictions.json"
    _earlier(record)
    foreign = (
        []
        if record.is_file()
        else [path for path in _targets(manifest, out, options) if path.exists()]
    )
    if foreign:
        raise OutputError(
            "stands there already, and no predictions.json beside it says that predict wrote it; "
            "choose another folder",
            path=foreign[0],
        )


def _earlier(path: Path) -> dict[str, Any]:
    """The entries of earlier calls into the same folder.

    Raises:
        OutputError: a file stands there that this program did not write.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("cases"), dict):
            raise TypeError("cases")
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(
            "is no record of earlier predictions, and would be written over; move it, or choose "
            "another folder",
            path=path,
        ) from error
    kept = migrate("delineate_predictions", record, path=str(path), error=OutputError)
    return dict(kept["cases"])


def _csv(cases: dict[str, Any]) -> str:
    """One row a case and structure, ``UNCERTAINTY`` its columns; an empty field is "not defined
    here": no sample has the structure.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(UNCERTAINTY)
    for case, entry in cases.items():
        for name, row in entry.get("uncertainty", {}).items():
            writer.writerow(
                (case, name, entry["volumes_ml"][name], *(row[key] for key in UNCERTAINTY[3:]))
            )
    return text.getvalue()

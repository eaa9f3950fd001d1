"""Predicting: scans in, delineated structures out, each on exactly its scan's grid.

Writes ``OUT/CASE.nii.gz`` (or another format) and ``OUT/predictions.json`` with volumes in ml, seconds, peak memory and the
model's id; with samples ``OUT/uncertainty.csv`` as well. Cases go through one door, delineated one at a time, while the next is read and prepared and
the last is written; one that fails is listed and the others are still done.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cohort import channels
from ..cohort.cases import read_image
from ..cohort.layouts import discover
from ..core import atomic
from ..core.bundle import Bundle, graphs_beside
from ..core.errors import InputError, LayoutError, UsageError
from ..core.manifest import ABSENT, Case, Manifest
from ..core.plan import Inference, Plan
from ..core.prediction import Prediction
from ..core.scores import without_nan
from ..core.volume import Volume
from ..formats import files
from ..metrics.uncertainty import agreement
from . import batch

if TYPE_CHECKING:
    from ..nets.predictor import Ready

FORMATS = ("nii.gz", "nii", "nrrd", "mha", "png")
BACKENDS = ("auto", "openvino", "torch")
MONTAGES = ("outlined", "filled")
PRECISIONS = ("auto", "float32", "int8")
UNCERTAINTY = ("case", "structure", "volume_ml", "mean_ml", "std_ml", "cv", "iou", "found_in")  # columns of uncertainty.csv

Progress = Callable[[float, float, str], None]  # cases done (with the share of the running one), cases in all, note


@dataclass(frozen=True)
class Options:
    """How to predict, beyond what the model's plan says.

    Args:
        device: "auto", "cpu" or "cuda".
        mirror: test-time mirroring along the axes that training mirrored; None does what the plan says.
        form: one of ``FORMATS``.
        dicom_seg: write a DICOM SEG beside each result whose scan is a DICOM series.
        views: only these views of a model that has several; all where empty.
        samples: so many Monte-Carlo dropout samples of each case, for their spread; 0 takes none.
        seed: of the samples; each one's stream follows from it, the case's id and the sample's number.
        allow_missing: delineate scans that lack some of the model's channels too.
        backend: "auto" takes the fastest that is here and knows the network, "torch" or "openvino" that one.
        precision: "auto" computes in half precision where the device has units for it, "float32" never; "int8" rounds to 8-bit integers what
            the model has bounds for (see ``steps.quantise``).
        ram_bytes, vram_bytes: what the process and its GPU may use, from reading to the written file; a case that needs more is refused
            with the least that works. None is no limit.
        skip_air: do not ask the network about what is more than 3 cm outside the body of a CT.
        montage: also write montages/CASE.png, three planes with the structures "outlined" or "filled".
        probabilities: also write probabilities/CASE.nii.gz, (I, J, K, structures + 1) with the background first.
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
    """What came out: one outcome a case, its value the entry of ``predictions.json``."""

    out: Path
    outcomes: Sequence[batch.Outcome[dict[str, Any]]]

    @property
    def failures(self) -> list[batch.Outcome[dict[str, Any]]]:
        return [o for o in self.outcomes if o.error is not None]


def predict(model: str | Path, inputs: Sequence[str | Path], out: str | Path, *, only: str | None = None, progress: Progress | None = None,
            **options: Any) -> Predicted:  # fmt: skip
    """Delineate every scan of ``inputs``.

    Args:
        model: a bundle.
        inputs: files, DICOM folders, folders of cases, or manifests.
        out: folder for the results; made where missing.
        only: "train", "val" or "test": that part of a cohort that is split.
        options: the fields of ``Options``.

    Raises:
        InputError, BundleError, UsageError: nothing could be done at all.
    """
    bundle = Bundle.load(model)
    manifest = gather(inputs, bundle, only)
    return Predicted(Path(out), predict_cases(bundle, manifest, out, model=model, progress=progress, **options))


def predict_cases(bundle: Bundle, manifest: Manifest, out: str | Path, *, model: str | Path = "", progress: Progress | None = None,
                  **options: Any) -> Sequence[batch.Outcome[dict[str, Any]]]:  # fmt: skip
    """Delineate the cases of ``manifest`` with a bundle in memory; arguments as for ``predict``. Compiled networks are kept beside ``model``."""
    from ..nets import limits
    from ..nets.infer import DTYPES, Engine, choose_device
    from ..nets.predictor import Samples, refuse_missing, refuse_overlapping, refuse_unless_ct

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
            raise UsageError("probabilities take two bytes a voxel and structure, which --ram does not count: give one of both")
    for given, allowed in ((asked.backend, BACKENDS), (asked.precision, PRECISIONS), (asked.montage or MONTAGES[0], MONTAGES)):
        if given not in allowed:
            raise UsageError(f"allowed are {', '.join(allowed)}, not {given!r}")

    engine = Engine.from_bundle(
        bundle, choose_device(asked.device), DTYPES[asked.precision], asked.views,
        backend=asked.backend,  # type: ignore[arg-type]
        graphs=graphs_beside(model) if model else None,
    )  # fmt: skip
    if asked.ram_bytes is not None or asked.vram_bytes is not None:
        limits.warm_up(engine)
    folder = atomic.make_folder(out)
    at = _Place(progress or (lambda done, total, note: None), len(manifest))
    with contextlib.closing(_Ahead(manifest, bundle.plan, asked)) as ahead, contextlib.closing(_Behind(asked)) as behind:
        job = partial(predict_case, manifest=manifest, engine=engine, bundle_id=bundle.id, inference=_inference(bundle, asked.mirror), out=folder,
                      options=asked, tell=at.tell, ready=ahead, write=behind)  # fmt: skip
        begun = batch.run(job, manifest.cases, names=[c.id for c in manifest], workers=1, progress=at.ended)
        outcomes = [_written(outcome) for outcome in begun]
    _record(folder, bundle, {"model": Path(model).name, "device": engine.device.type, "options": asked}, outcomes)
    return outcomes


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
    """The scans of a cohort in their order, the next one read and prepared while this one is delineated; one at a time where memory is limited."""

    def __init__(self, manifest: Manifest, plan: Plan, options: Options):
        import torch

        self._manifest, self._plan, self._options = manifest, plan, options
        self._next = {} if options.ram_bytes is not None else {case.id: following for case, following in pairwise(manifest)}
        self._waiting: dict[str, Future[Ready]] = {}
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (1,))  # the others are at work on the scan before

    def __call__(self, case: Case) -> Ready:
        waiting = self._waiting.pop(case.id, None)
        try:
            return self._make(case) if waiting is None else waiting.result()
        finally:
            if case.id in self._next:
                following = self._next[case.id]
                self._waiting[following.id] = self._pool.submit(self._make, following)

    def _make(self, case: Case) -> Ready:
        from ..nets.predictor import make_ready

        lacking = channels.missing(case, self._manifest)
        if lacking and not self._options.allow_missing:
            raise _refusal(case, self._manifest, lacking)
        present = [n for n, image in enumerate(case.images) if image != ABSENT] if lacking else None
        return make_ready(read_scan(case, self._manifest), self._plan, present, self._options.skip_air)

    def close(self) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)  # what threads to come begin with


class _Behind:
    """Results written while the next case is delineated, one at a time; at once where memory is limited."""

    def __init__(self, options: Options):
        self._last: Future[Any] | None = None
        self._pool = None if options.ram_bytes is not None else ThreadPoolExecutor(1, thread_name_prefix="behind")

    def __call__(self, write: Callable[[], dict[str, Any]]) -> Future[dict[str, Any]] | dict[str, Any]:
        if self._pool is None:
            return write()
        if self._last is not None:
            wait([self._last])  # so that no more than one result is held beside the one that is made
        self._last = self._pool.submit(write)
        return self._last

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _written(begun: batch.Outcome[Any]) -> batch.Outcome[dict[str, Any]]:
    """The outcome of a case once its result is written."""
    if not isinstance(begun.value, Future):
        return begun
    ended = batch.attempt(Future.result, begun.value, begun.name)
    return replace(ended, seconds=begun.seconds + ended.seconds)


def read_scan(case: Case, manifest: Manifest) -> Volume:
    """The scan of a case, of the channels that it has."""
    return read_image(*channels.only_present(case, manifest))


def gather(inputs: Sequence[str | Path], bundle: Bundle, only: str | None = None) -> Manifest:
    """All scans of ``inputs`` as one manifest with the model's channels; truth, where there is some, is left out.

    A scan that lacks some of several channels is kept, with ``ABSENT`` in their place.

    Raises:
        InputError: nothing there, or another number of channels than the model takes.
    """
    wanted = tuple(c.name for c in bundle.plan.channels)
    for given in inputs:
        if not Path(given).exists():
            raise InputError("does not exist", path=given)
    told = _told_by_name([Path(given) for given in inputs], wanted)
    cases = [] if only else [case for found in told.values() for case in found]
    for given in map(Path, inputs):
        if only or given not in told:
            cases += _of_layout(given, wanted, only)
    if not cases:
        raise LayoutError(f"no scan found{f' in split {only}' if only else ''}", path=str(inputs[0]) if inputs else None)
    seen: dict[str, int] = {}
    unique = []
    for case in cases:  # two inputs may hold files of one name
        seen[case.id] = seen.get(case.id, 0) + 1
        unique.append(case if seen[case.id] == 1 else replace(case, id=f"{case.id}_{seen[case.id]}"))
    return Manifest(tuple(unique), wanted, bundle.labels)


def _told_by_name(inputs: Sequence[Path], wanted: tuple[str, ...]) -> dict[Path, list[Case]]:
    """Of the inputs, those whose files tell by name which of several channels they are, with their scans.

    The files given one by one are looked at together, and their scans stand with the first of them.
    """
    if len(wanted) < 2:
        return {}
    told: dict[Path, list[Case]] = {}
    loose = [path for path in inputs if path.is_file() and path.suffix != ".jsonl"]
    together = channels.grouped(loose, wanted)
    used = {image.path for case in together for image in case.images}
    mine = [path for path in loose if os.path.abspath(path) in used]
    told |= {path: together if path == mine[0] else [] for path in mine}
    for folder in (path for path in inputs if path.is_dir()):
        described = any((folder / name).is_file() for name in ("manifest.jsonl", "dataset.json"))
        if not described and (found := channels.by_names(folder, wanted)):
            told[folder] = found
    return told


def _of_layout(given: Path, wanted: tuple[str, ...], only: str | None) -> list[Case]:
    """The scans that the layout of ``given`` tells, those that it left out for a lacking channel too."""
    found = discover(given)
    cases = [case for case in (*found.manifest, *channels.incomplete(found)) if only is None or case.split == only]
    plain = [replace(case, label=(), split=None, fold=None) for case in cases]
    return [channels.in_order(case, found.manifest.channels, wanted) for case in plain]


def _inference(bundle: Bundle, mirror: bool | None) -> Inference:
    inference = bundle.plan.inference
    if mirror is None:
        return inference
    return inference.model_copy(update={"mirror": bundle.plan.augmentation.mirror if mirror else ()})


def predict_case(
    case: Case,
    manifest: Manifest,
    engine: Any,
    bundle_id: str,
    inference: Inference,
    out: Path,
    options: Options,
    ready: Callable[[Case], Ready],
    write: Callable[[Callable[[], dict[str, Any]]], Any],
    tell: Callable[[float, str], None] = lambda share, note: None,
) -> Any:
    """Delineate one case that ``ready`` reads and prepares.

    Gives what ``write`` makes of the function that writes it: the case's entry of ``predictions.json``, or a future of that.
    """
    from ..nets.predictor import Samples, delineate

    memory_bytes = _memory(case, engine, options)
    prediction = measured(
        delineate(ready(case), engine, bundle_id, inference, samples=Samples(options.samples, f"{options.seed} {case.id}"),
                  memory_bytes=memory_bytes, probabilities=options.probabilities, tell=lambda share, note: tell(share, f"{case.id}, {note}"))
    )  # fmt: skip
    return write(partial(_write, case, manifest, prediction, bundle_id, out, options))


def _write(case: Case, manifest: Manifest, prediction: Prediction, bundle_id: str, out: Path, options: Options) -> dict[str, Any]:
    """Write what was asked for; gives the case's entry of ``predictions.json``."""
    target = out / f"{case.id}.{options.form}"
    files.write(prediction.labels, target, labels=prediction.structures)
    entry = {"file": target.name, "input": case.path, **prediction.to_json(), "peak_memory_mb": peak_memory_mb()}
    if options.dicom_seg:
        entry["dicom_seg"] = _write_seg(case, prediction, out, bundle_id)
    if options.probabilities:
        entry["probabilities"] = _write_probabilities(case, prediction, out)
    if options.montage:
        image = read_scan(case, manifest)  # again: so far its memory was free for the sums
        entry["montage"] = _write_montage(case, image, prediction, out, options.montage)
    return entry


def _write_montage(case: Case, image: Volume, prediction: Prediction, out: Path, style: str) -> str:
    from ..show.pictures import montage

    target = out / "montages" / f"{case.id}.png"
    montage(image, {"prediction": prediction.labels}, prediction.structures, target, title=case.id, filled=style == "filled")
    return f"montages/{target.name}"


def _write_probabilities(case: Case, prediction: Prediction, out: Path) -> str:
    from ..formats import nifti
    from ..ops.prepare import PROBABILITY_ONE

    assert prediction.probabilities is not None  # they were asked for
    target = out / "probabilities" / f"{case.id}.nii.gz"
    nifti.write(Volume(prediction.probabilities, prediction.labels.grid), target, step=1 / PROBABILITY_ONE)
    return f"probabilities/{target.name}"


def _memory(case: Case, engine: Any, options: Options) -> int | None:
    """What sums of scores may take under the limits; a case that cannot be done under them is refused before it is read."""
    from ..nets.limits import Limits, memory_for_sums, need_of

    if options.ram_bytes is None and options.vram_bytes is None:
        return None
    source = next(image for image in case.images if image != ABSENT)
    grid = files.read_grid(source)
    return memory_for_sums(Limits(options.ram_bytes, options.vram_bytes), need_of(grid, engine.plan, engine), engine, case.id)


def _refusal(case: Case, manifest: Manifest, lacking: Sequence[str]) -> InputError:
    there = ", ".join(f"{name} ({image.path})" for name, image in zip(manifest.channels, case.images, strict=True) if image != ABSENT)
    return InputError(
        f"channel {', '.join(lacking)} is missing; the model takes {', '.join(manifest.channels)}, found {there}; "
        "a model that was trained for it delineates such a scan with --allow-missing",
        case=case.id,
    )


def measured(prediction: Prediction) -> Prediction:
    """The prediction with what its samples say of each structure in the place of the samples; unchanged where it has none."""
    if not prediction.samples:
        return prediction
    names, values = prediction.structures.names, prediction.structures.values
    rows = agreement(prediction.samples, values, prediction.labels.grid.voxel_ml)
    found = {name: {k: v for k, v in asdict(row).items() if k != "value"} for name, row in zip(names, rows, strict=True)}
    return replace(prediction, uncertainty=found, samples=())


def _write_seg(case: Case, prediction: Any, out: Path, bundle_id: str) -> str:
    from .. import __version__
    from ..formats.dicom import find_series
    from ..formats.dicom_seg import write_seg

    source = next(image for image in case.images if image != ABSENT)
    series = [s for s in find_series(Path(source.path)) if not source.series or s.uid == source.series] if Path(source.path).is_dir() else []
    if len(series) != 1:
        raise InputError("a DICOM SEG needs a scan that is one DICOM series", case=case.id, path=source.path)
    target = out / f"{case.id}.seg.dcm"
    write_seg(
        prediction.labels,
        prediction.structures,
        series[0].files,
        target,
        algorithm_name=f"delineate model {bundle_id}",
        algorithm_version=__version__,
    )
    return target.name


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB.

    Linux's own count of the process: the one of ``getrusage`` begins with that of whoever started it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _record(folder: Path, bundle: Bundle, head: dict[str, Any], outcomes: Sequence[batch.Outcome[dict[str, Any]]]) -> None:
    """Write ``predictions.json``, and ``uncertainty.csv`` where cases were sampled; entries of earlier calls into the same folder stay."""
    path, asked = folder / "predictions.json", head.pop("options")
    cases: dict[str, Any] = {}
    if path.is_file():
        try:
            cases = json.loads(path.read_text(encoding="utf-8")).get("cases", {})
        except ValueError:
            cases = {}
    for outcome in outcomes:
        cases[outcome.name] = {"error": str(outcome.error)} if outcome.error is not None else outcome.value
    record = head | {"bundle": bundle.id, "labels": bundle.labels.to_json(), "peak_memory_mb": peak_memory_mb()}
    record |= {"precision": asked.precision} if asked.precision != "auto" else {}
    record |= {"views": list(asked.views)} if asked.views else {}
    record |= {"samples": asked.samples, "seed": asked.seed} if asked.samples else {}
    cases = without_nan(cases)
    atomic.write_text(path, json.dumps(without_nan(record | {"cases": cases}), indent=1))
    if any("uncertainty" in entry for entry in cases.values()):
        atomic.write_text(folder / "uncertainty.csv", _csv(cases))


def _csv(cases: dict[str, Any]) -> str:
    """One row a case and structure, ``UNCERTAINTY`` its columns; an empty field is "not defined here": no sample has the structure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(UNCERTAINTY)
    for case, entry in cases.items():
        for name, row in entry.get("uncertainty", {}).items():
            writer.writerow((case, name, entry["volumes_ml"][name], *(row[key] for key in UNCERTAINTY[3:])))
    return text.getvalue()

"""Predicting: scans in, delineated structures out, each on exactly its scan's grid.

Writes ``OUT/CASE.nii.gz`` (or another format) and ``OUT/predictions.json`` with volumes in ml, seconds, peak memory and the
model's id. Cases run one at a time through one door; one that fails is listed and the others are still done.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..cohort.cases import read_image
from ..cohort.layouts import find
from ..core import atomic
from ..core.bundle import Bundle
from ..core.errors import InputError, LayoutError, UsageError
from ..core.manifest import Case, Manifest
from ..core.plan import Inference
from ..core.scores import without_nan
from ..formats import files
from . import batch

FORMATS = ("nii.gz", "nii", "nrrd", "mha", "png")


@dataclass(frozen=True)
class Predicted:
    """What came out: one outcome a case, its value the entry of ``predictions.json``."""

    out: Path
    outcomes: Sequence[batch.Outcome[dict[str, Any]]]

    @property
    def failures(self) -> list[batch.Outcome[dict[str, Any]]]:
        return [o for o in self.outcomes if o.error is not None]


def predict(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    device: str = "auto",
    mirror: bool | None = None,
    form: str = "nii.gz",
    dicom_seg: bool = False,
    only: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Predicted:
    """Delineate every scan of ``inputs``.

    Args:
        model: a bundle.
        inputs: files, DICOM folders, folders of cases, or manifests.
        out: folder for the results; made where missing.
        device: "auto", "cpu" or "cuda".
        mirror: test-time mirroring along the axes that training mirrored; None does what the plan says.
        form: one of ``FORMATS``.
        dicom_seg: write a DICOM SEG beside each result whose scan is a DICOM series.
        only: "train", "val" or "test": that part of a cohort that is split.

    Raises:
        InputError, BundleError, UsageError: nothing could be done at all.
    """
    bundle = Bundle.load(model)
    manifest = gather(inputs, bundle, only)
    outcomes = predict_cases(
        bundle, manifest, out, model=Path(model).name, device=device, mirror=mirror, form=form, dicom_seg=dicom_seg, progress=progress
    )
    return Predicted(Path(out), outcomes)


def predict_cases(
    bundle: Bundle,
    manifest: Manifest,
    out: str | Path,
    *,
    model: str = "",
    device: str = "auto",
    mirror: bool | None = None,
    form: str = "nii.gz",
    dicom_seg: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Sequence[batch.Outcome[dict[str, Any]]]:
    """Delineate the cases of ``manifest`` with a bundle in memory; arguments as for ``predict``."""
    from ..nets.infer import Engine, choose_device

    if form not in FORMATS:
        raise UsageError(f"results are written as {', '.join(FORMATS)}, not {form!r}")
    folder = atomic.make_folder(out)
    engine = Engine.from_bundle(bundle, choose_device(device))
    job = partial(
        predict_case,
        manifest=manifest,
        engine=engine,
        bundle_id=bundle.id,
        inference=_inference(bundle, mirror),
        out=folder,
        form=form,
        dicom_seg=dicom_seg,
    )
    outcomes = batch.run(job, manifest.cases, names=[c.id for c in manifest], workers=1, progress=progress)
    _record(folder, bundle, model, engine.device.type, outcomes)
    return outcomes


def gather(inputs: Sequence[str | Path], bundle: Bundle, only: str | None = None) -> Manifest:
    """All scans of ``inputs`` as one manifest with the model's channels; truth, where there is some, is left out.

    Raises:
        InputError: nothing there, or another number of channels than the model takes.
    """
    wanted = tuple(c.name for c in bundle.plan.channels)
    cases: list[Case] = []
    for given in inputs:
        if not Path(given).exists():
            raise InputError("does not exist", path=given)
        found = find(given)
        cases += [_with_channels(case, found, wanted) for case in found if only is None or case.split == only]
    if not cases:
        raise LayoutError(f"no scan found{f' in split {only}' if only else ''}", path=str(inputs[0]) if inputs else None)
    seen: dict[str, int] = {}
    unique = []
    for case in cases:  # two inputs may hold files of one name
        seen[case.id] = seen.get(case.id, 0) + 1
        unique.append(case if seen[case.id] == 1 else replace(case, id=f"{case.id}_{seen[case.id]}"))
    return Manifest(tuple(unique), wanted, bundle.labels)


def _with_channels(case: Case, found: Manifest, wanted: tuple[str, ...]) -> Case:
    """The case with the model's channels: by name where the names agree, else in order."""
    plain = replace(case, label=(), split=None, fold=None)
    if len(case.images) in (1, len(wanted)) and (len(found.channels) == len(wanted) or len(case.images) == len(wanted)):
        if set(wanted) == set(found.channels) and len(case.images) == len(wanted):
            return replace(plain, images=tuple(case.images[found.channels.index(name)] for name in wanted))
        return plain
    if set(wanted) <= set(found.channels) and len(case.images) == len(found.channels):
        return replace(plain, images=tuple(case.images[found.channels.index(name)] for name in wanted))
    raise InputError(
        f"found {len(found.channels)} channel(s) ({', '.join(found.channels)}), the model takes {len(wanted)} ({', '.join(wanted)})",
        case=case.id,
        path=case.images[0].path,
    )


def _inference(bundle: Bundle, mirror: bool | None) -> Inference:
    inference = bundle.plan.inference
    if mirror is None:
        return inference
    return inference.model_copy(update={"mirror": bundle.plan.augmentation.mirror if mirror else ()})


def predict_case(
    case: Case, manifest: Manifest, engine: Any, bundle_id: str, inference: Inference, out: Path, form: str, dicom_seg: bool
) -> dict[str, Any]:
    """Read, delineate and write one case; gives its entry of ``predictions.json``."""
    from ..nets.predictor import predict as delineate

    image = read_image(case, manifest)
    prediction = delineate(image, engine, bundle_id, inference)
    target = out / f"{case.id}.{form}"
    files.write(prediction.labels, target, labels=prediction.structures)
    entry = {"file": target.name, "input": case.images[0].path, **prediction.to_json(), "peak_memory_mb": peak_memory_mb()}
    if dicom_seg:
        entry["dicom_seg"] = _write_seg(case, prediction, out, bundle_id)
    return entry


def _write_seg(case: Case, prediction: Any, out: Path, bundle_id: str) -> str:
    from .. import __version__
    from ..formats.dicom import find_series
    from ..formats.dicom_seg import write_seg

    source = case.images[0]
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
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _record(folder: Path, bundle: Bundle, model: str, device: str, outcomes: Sequence[batch.Outcome[dict[str, Any]]]) -> None:
    """Write ``predictions.json``; entries of earlier calls into the same folder stay."""
    path = folder / "predictions.json"
    cases: dict[str, Any] = {}
    if path.is_file():
        try:
            cases = json.loads(path.read_text(encoding="utf-8")).get("cases", {})
        except ValueError:
            cases = {}
    for outcome in outcomes:
        cases[outcome.name] = {"error": str(outcome.error)} if outcome.error is not None else outcome.value
    record = {
        "model": model,
        "bundle": bundle.id,
        "device": device,
        "labels": bundle.labels.to_json(),
        "peak_memory_mb": peak_memory_mb(),
        "cases": cases,
    }
    atomic.write_text(path, json.dumps(without_nan(record), indent=1))

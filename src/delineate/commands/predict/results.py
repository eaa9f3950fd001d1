"""What predicting writes: masks, what is asked for beside them, and the record of all of it.

``OUT/CASE.nii.gz`` (or another format), ``OUT/predictions.json`` with every input file, volumes in
ml, seconds, peak memory and the model's id; with samples ``OUT/uncertainty.csv``. What an addition
to the mask (a DICOM SEG, probabilities, a picture) cannot do costs neither the mask nor its record.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...cohorts.discovery import channels
from ...cohorts.reading import read_image
from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import DelineateError, InputError, OutputError
from ...core.manifest import ABSENT, Case, Manifest, Source
from ...core.prediction import Prediction
from ...core.schema import SCHEMAS, migrate
from ...core.scores import without_nan
from ...core.terms import contradicts_modality
from ...core.volume import Volume
from ...execution import local as batch
from ...formats import files
from .options import MONTAGES, Options

if TYPE_CHECKING:
    from ...formats.dicom.seg import SegSource

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


def targets_of(manifest: Manifest, out: Path, options: Options) -> Iterator[Path]:
    """Every file that may be written."""
    yield from _about_all(out)
    yield from _of_cases(manifest, out, options)


def _about_all(out: Path) -> tuple[Path, ...]:
    return out / "predictions.json", out / "uncertainty.csv"


def _of_cases(manifest: Manifest, out: Path, options: Options) -> Iterator[Path]:
    for case in manifest:
        yield out / f"{case.id}.{options.form}"
        if options.dicom_seg:
            yield out / f"{case.id}.seg.dcm"
        if options.probabilities:
            yield out / "probabilities" / f"{case.id}.nii.gz"
        if options.montage:
            yield out / "montages" / f"{case.id}.png"


def read_scan(case: Case, manifest: Manifest) -> Volume:
    """The scan of a case, of the channels that it has.

    Raises:
        InputError: it is of another modality than the model's channel is.
    """
    scan = read_image(*channels.only_present(case, manifest))
    modality = str(scan.meta.get("modality", ""))
    if len(manifest.channels) == 1 and contradicts_modality(modality, manifest.channels[0]):
        raise InputError(
            f"is a {modality} series, and the model takes {manifest.channels[0]}", path=case.path
        )
    return scan


def write_result(
    case: Case,
    manifest: Manifest,
    prediction: Prediction,
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
        additions["dicom_seg"] = lambda: _write_seg(case, prediction, out, seg)
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
    from ...reporting.pictures import montage

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
    from ...formats import nifti
    from ...preprocessing.prepare import PROBABILITY_ONE

    assert prediction.probabilities is not None  # they were asked for
    target = out / "probabilities" / f"{case.id}.nii.gz"
    nifti.write(
        Volume(prediction.probabilities, prediction.labels.grid), target, step=1 / PROBABILITY_ONE
    )
    return f"probabilities/{target.name}"


def seg_source_of(case: Case, bundle: Bundle) -> SegSource:
    """The series that the case's DICOM SEG will refer to, proved to take one before anything is
    delineated.

    Raises:
        InputError: the scan is not one DICOM series, or the series lacks what a SEG must repeat.
    """
    from ...formats.dicom import find_series
    from ...formats.dicom.seg import seg_source

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
    seg: SegSource | DelineateError | None,
) -> str:
    from ...formats.dicom.seg import write_seg

    if seg is None or isinstance(seg, DelineateError):
        raise seg or InputError(
            "a DICOM SEG needs a scan that is one DICOM series", case=case.id, path=case.path
        )
    target = out / f"{case.id}.seg.dcm"
    write_seg(
        prediction.labels, prediction.structures, seg, target, **_algorithm(prediction.bundle_id)
    )
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


def write_record(
    folder: Path,
    bundle: Bundle,
    head: dict[str, Any],
    outcomes: Sequence[batch.Outcome[dict[str, Any]]],
    writing: Sequence[str] = (),
) -> None:
    """Write ``predictions.json``, and ``uncertainty.csv`` where cases were sampled; entries of
    earlier calls into the same folder stay.

    Args:
        writing: the cases that are about to be written, so that what a killed call leaves is known
            as its own.
    """
    path, asked = folder / "predictions.json", head["options"]
    cases, begun = _earlier(path)
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
    begun = {*writing, *begun} - set(cases)
    record |= {"writing": sorted(begun)} if begun else {}
    cases = without_nan(cases)
    atomic.write_text(path, json.dumps(without_nan(record | {"cases": cases}), indent=1))
    if any("uncertainty" in entry for entry in cases.values()):
        atomic.write_text(folder / "uncertainty.csv", _csv(cases))


def refuse_foreign(manifest: Manifest, out: Path, options: Options) -> None:
    """Refuse results where files of their names stand that are no results: predict writes over its
    own alone.

    Raises:
        OutputError: such a file, or one called predictions.json that is no record of predictions.
    """
    record = out / "predictions.json"
    written, begun = _earlier(record)
    others = tuple(case for case in manifest if case.id not in {*written, *begun})
    strangers = Manifest(others, manifest.channels)
    about_all = () if record.is_file() else _about_all(out)
    for path in (*about_all, *_of_cases(strangers, out, options)):
        if path.exists():
            raise OutputError(
                "stands there already, and no predictions.json beside it says that predict wrote "
                "it; choose another folder",
                path=path,
            )


def _earlier(path: Path) -> tuple[dict[str, Any], set[str]]:
    """Of earlier calls into the same folder: the entries, and the cases that they had begun to
    write.

    Raises:
        OutputError: a file stands there that this program did not write.
    """
    if not path.is_file():
        return {}, set()
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
    return dict(kept["cases"]), set(kept.get("writing", ()))


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

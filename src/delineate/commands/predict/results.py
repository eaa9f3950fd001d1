"""The output of predict: masks, optional additions to them, and the record.

``OUT/CASE.nii.gz`` (or another format; of structures that overlap see ``overlapping_masks``),
``OUT/predictions.json`` with every input file, volumes in
ml, seconds, peak memory and the model's id; with samples ``OUT/uncertainty.csv``. If an addition (a
DICOM SEG, probabilities, a picture) fails, the mask and its record are kept.
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__
from ...cohorts.discovery import channels
from ...cohorts.reading import read_image
from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import DelineateError, InputError, OutputError
from ...core.inputs import read_json
from ...core.machine import name_of_machine
from ...core.manifest import ABSENT, Case, Manifest, Source
from ...core.outputs import refuse_replacing
from ...core.plan import Plan
from ...core.prediction import PROBABILITY_ONE, RECORD, Prediction
from ...core.schema import SCHEMAS, migrate
from ...core.scores import without_nan
from ...core.terms import contradicts_modality
from ...core.volume import Volume
from ...evaluation.learned import learned_dice
from ...evaluation.training_verdict import Verdict
from ...execution import local as batch
from ...execution.shards import Shard
from ...formats import files
from ...trust.plausibility import Ranges
from ..options import MONTAGES, EngineOptions, PredictOptions, given_options
from .journal import NAME as JOURNAL
from .journal import Journal, inputs_sha256
from .objects import KINDS, Result, file_of, heat_of
from .overlapping_masks import mask_files, write_mask

if TYPE_CHECKING:
    from ...formats.dicom import SourceSeries

# Of the stored maps of entropy and standard deviation; the largest entropy, ln 256, is 5.5.
MAP_STEP = 1e-4
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


# What the reader of a scan may note in ``Volume.meta``: sentences, and the slices (k of the mask)
# that are interpolated because the series lacks them; and scanner, year, sex and age.
READ = ("notes", "interpolated_slices", "about")


def targets_of(
    manifest: Manifest, out: Path, options: PredictOptions, plan: Plan
) -> Iterator[Path]:
    """All files that may be written."""
    yield from _about_all(out, options)
    yield from of_cases(manifest, out, options, plan)


def _about_all(out: Path, options: PredictOptions) -> tuple[Path, ...]:
    journal = out / Shard.parsed(options.shard).named(JOURNAL)
    return out / RECORD, out / "uncertainty.csv", journal


def of_cases(manifest: Manifest, out: Path, options: PredictOptions, plan: Plan) -> Iterator[Path]:
    for case in manifest:
        yield from mask_files(out, case.id, options.mask_form, plan.output_labels)
        for kind in options.objects:
            yield out / file_of(case.id, kind)
        if options.probabilities:
            yield out / "probabilities" / f"{case.id}.nii.gz"
        for name in options.maps:
            yield out / name / f"{case.id}.nii.gz"
        if options.montage:
            yield out / "montages" / f"{case.id}.png"


def read_scan(case: Case, manifest: Manifest) -> Volume:
    """The scan of a case, with the channels that the case has.

    Raises:
        InputError: its modality differs from that of the model's channel.
    """
    scan = read_image(*channels.only_present(case, manifest))
    modality = str(scan.meta.get("modality", ""))
    if len(manifest.channels) == 1 and contradicts_modality(modality, manifest.channels[0]):
        raise InputError(
            f"is a {modality} series; the model needs {manifest.channels[0]}", path=case.path
        )
    return scan


def write_result(
    case: Case,
    manifest: Manifest,
    prediction: Prediction,
    out: Path,
    options: PredictOptions,
    series: Mapping[str, SourceSeries | DelineateError],
    flags: Callable[[], list[dict[str, Any]]],
    noted: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write the mask, then the requested additions; ``series`` is that of each DICOM object, or why
    there is none, ``flags`` finds what is implausible, ``noted`` is what the reader of the scan
    noted (``READ``).

    Returns:
        The case's entry of ``predictions.json``. Additions that cannot be written are listed under
        "not_written", with the reason.
    """
    entry: dict[str, Any] = {
        **write_mask(prediction, out, case.id, options.mask_form),
        "input": case.path,
        "inputs": inputs_of(case, manifest),
        "input_sha256": inputs_sha256(case),
        **prediction.to_json(),
        "flags": flags(),
        **noted,
        "peak_memory_mb": peak_memory_mb(),
        "machine": name_of_machine(),
    }
    # Read again, once for all: meanwhile its memory was free for the class scores.
    scan = cache(partial(read_scan, case, manifest))
    additions: dict[str, Callable[[], str]] = {}
    for kind, found in series.items():
        additions[KINDS[kind].entry] = partial(
            _write_object,
            kind,
            found,
            prediction,
            scan,
            entry,
            options,
            out / file_of(case.id, kind),
        )
    if options.probabilities:
        additions["probabilities"] = lambda: _write_probabilities(case, prediction, out)
    for name in options.maps:
        additions[name] = partial(_write_map, case, prediction, out, name)
    if options.montage:
        additions["montage"] = lambda: _write_montage(
            case.id, scan(), prediction, out, options.montage or MONTAGES[0]
        )
    for what, write in additions.items():
        try:
            entry[what] = write()
        except DelineateError as error:
            entry.setdefault("not_written", {})[what] = error.message
    return entry


def inputs_of(case: Case, manifest: Manifest) -> dict[str, str | None]:
    """Channel -> its file or folder, ``FOLDER#SERIES`` for one series among several; None for a
    channel that the scan lacks.
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


def _write_montage(case: str, scan: Volume, prediction: Prediction, out: Path, style: str) -> str:
    from ...reporting.pictures import montage

    target = out / "montages" / f"{case}.png"
    montage(
        scan,
        {"prediction": prediction.labels},
        prediction.structures,
        target,
        title=case,
        filled=style == "filled",
        heat=heat_of(prediction),
    )
    return f"montages/{target.name}"


def _write_probabilities(case: Case, prediction: Prediction, out: Path) -> str:
    from ...formats import nifti

    assert prediction.probabilities is not None  # because the option asks for them
    target = out / "probabilities" / f"{case.id}.nii.gz"
    nifti.write(
        Volume(prediction.probabilities, prediction.labels.grid), target, step=1 / PROBABILITY_ONE
    )
    return f"probabilities/{target.name}"


def _write_map(case: Case, prediction: Prediction, out: Path, name: str) -> str:
    from ...formats import nifti

    target = out / name / f"{case.id}.nii.gz"
    steps = np.rint(prediction.maps[name] / MAP_STEP).clip(0, 65535).astype(np.uint16)
    nifti.write(Volume(steps, prediction.labels.grid), target, step=MAP_STEP)
    return f"{name}/{target.name}"


def _write_object(
    kind: str,
    series: SourceSeries | DelineateError,
    prediction: Prediction,
    scan: Callable[[], Volume],
    entry: dict[str, Any],
    options: PredictOptions,
    target: Path,
) -> str:
    """Write a DICOM object; notes about it are added to those of the entry.

    Raises:
        DelineateError: it cannot be written, or refers to an object that was not written.
    """
    if isinstance(series, DelineateError):
        raise series
    after = KINDS[kind].after
    if after and KINDS[after].entry not in entry:
        raise OutputError(f"it refers to the {after}, which was not written", path=target)
    made_of = Result(
        prediction, series, scan, entry["flags"], options.seg_encoding, options.smallest_mm2
    )
    notes = [*series.notes, *(KINDS[kind].write(made_of, target) or ())]
    if notes:
        entry["notes"] = [*dict.fromkeys([*entry.get("notes", ()), *notes])]
    return target.name


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB.

    On Linux from /proc, since ``getrusage`` includes the memory of the parent process. Windows has
    no ``getrusage``.
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
    journal: Journal | None = None,
    order: Sequence[str] = (),
) -> None:
    """Write ``predictions.json``, and ``uncertainty.csv`` if there are samples; entries of earlier
    calls into the same folder are kept.

    Args:
        writing: the cases about to be written, so that files of a killed call can be recognised.
        journal: with the cases of calls that were killed.
        order: in which cases are listed, whatever order they were finished in; others come first.
    """
    path, asked = folder / RECORD, head["options"]
    cases, begun = ({}, set()) if "cases_in" in head else _earlier(path, asked.overwrite)
    cases |= {} if journal is None else journal.entries
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
        "labels": bundle.plan.output_labels.to_json(),
        **({"overlapping": True} if bundle.plan.output_labels.overlapping else {}),
        "checked_against": checked_against(bundle),
        "learned_dice": learned_dice(bundle.card),
        "verdict": Verdict.from_json(bundle.card.get("verdict")).to_json(),
        "peak_memory_mb": peak_memory_mb(),
    }
    record |= {"views": list(asked.views)} if asked.views else {}
    record |= {"samples": asked.samples, "seed": asked.seed} if asked.samples else {}
    # Which cases a call does, and where, is no property of the results.
    given = given_options(replace(asked, **vars(EngineOptions()), spool_bytes=None))
    record |= {"options": given} if given else {}
    begun = {*writing, *begun} - set(cases)
    record |= {"writing": sorted(begun)} if begun else {}
    places = {name: place for place, name in enumerate(order)}
    cases = without_nan(dict(sorted(cases.items(), key=lambda one: places.get(one[0], -1))))
    atomic.write_json(path, without_nan(record | {"cases": cases}))
    if any("uncertainty" in entry for entry in cases.values()):
        atomic.write_text(folder / "uncertainty.csv", _csv(cases))


def checked_against(bundle: Bundle) -> str:
    """With what the flags of a prediction compare it."""
    ranges = Ranges.from_json(bundle.card.get("plausibility"))
    if ranges is None or not ranges.ranges:
        return "not checked: the model has no ranges of its training cases"
    return f"{ranges.cases} training cases"


def refuse_foreign(manifest: Manifest, out: Path, options: PredictOptions, plan: Plan) -> None:
    """Refuse to replace files that predict did not write, unless ``overwrite`` is given.

    Raises:
        OutputError: there is such a file, or a predictions.json of another program.
    """
    if options.overwrite:
        return
    record = out / RECORD
    written, begun = _earlier(record)
    others = tuple(case for case in manifest if case.id not in {*written, *begun})
    strangers = Manifest(others, manifest.channels)
    about_all = list(_about_all(out, options) if not record.is_file() else ())
    if not any("uncertainty" in entry for entry in written.values()):
        about_all.append(out / "uncertainty.csv")
    for path in (*about_all, *of_cases(strangers, out, options, plan)):
        if path.exists():
            raise OutputError(
                "exists already, and no predictions.json in its folder names it as a result of "
                "predict; choose another folder, or replace it with --overwrite",
                path=path,
            )


def refuse_edited(changed: Iterable[Path]) -> None:
    """Refuse to replace results that were edited. One that cannot be read is damaged, and is made
    again.

    Raises:
        OutputError: a result can be read, and is not as it was written.
    """
    for path in filter(Path.is_file, changed):
        try:
            files.read(path)
        except DelineateError:
            continue
        refuse_replacing(path)


def _earlier(path: Path, overwrite: bool = False) -> tuple[dict[str, Any], set[str]]:
    """The entries of earlier calls into the same folder, and the cases that they had begun to
    write.

    Args:
        overwrite: a file of another program counts as none.

    Raises:
        OutputError: the file was not written by this program.
    """
    if not path.is_file():
        return {}, set()
    try:
        record = read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("cases"), dict):
            raise TypeError("cases")
    except (InputError, TypeError) as error:
        if overwrite:
            return {}, set()
        raise OutputError(
            "is not a record of predictions and would be replaced; choose another folder, or "
            "replace it with --overwrite",
            path=path,
        ) from error
    kept = migrate("delineate_predictions", record, path=str(path), error=OutputError)
    refuse_list(kept, path)
    return dict(kept["cases"]), set(kept.get("writing", ()))


def refuse_list(record: Mapping[str, Any], path: Path) -> None:
    """Refuse a record whose cases are those of a work list.

    Raises:
        OutputError: see above.
    """
    if "cases_in" in record:
        raise OutputError(
            "is the record of a work list, whose results have a folder of their own: give the list "
            "again, or choose another folder",
            path=path,
        )


def _csv(cases: dict[str, Any]) -> str:
    """One row per case and structure with the columns ``UNCERTAINTY``; a field is empty if no
    sample has the structure.
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

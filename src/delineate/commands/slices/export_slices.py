"""Export slices: the scans and masks of a cohort as 2-D files, which ``merge_slices`` rebuilds.

The tree and its record are described in ``formats.slices.record``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cohorts.discovery.layouts import discover
from ...cohorts.discovery.originals import originals
from ...cohorts.reading import read_image, read_label
from ...cohorts.splitting import read_split
from ...core import atomic
from ...core.errors import InputError, OutputError, UsageError
from ...core.manifest import Case, Manifest
from ...core.progress import Progress, silent
from ...execution import local as batch
from ...execution.claims import CLAIM, claimed
from ...formats.slices.cases import write_case
from ...formats.slices.pixels import MASKS, MaskCodes
from ...formats.slices.record import (
    ENDINGS,
    INDEX,
    RECORD,
    VIEWS,
    ExportedCase,
    SliceSet,
    folders_of,
)
from ..options import ExportSlicesOptions, found_by, given_options, reads_images


@dataclass(frozen=True)
class SliceReport:
    """The result of an export.

    Args:
        out: its folder.
        cases: the exported ones.
        slices: number of slices of all of them.
        failures: one sentence for each case that could not be exported.
        notes: what was lost or left out.
    """

    out: Path
    cases: tuple[ExportedCase, ...]
    slices: int
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; geometry and intensities are in ``slices.json``."""
        data = {**vars(self), "out": str(self.out), "cases": [case.id for case in self.cases]}
        return data | {"failures": list(self.failures), "notes": list(self.notes)}


@reads_images
def export_slices(
    data: str | Path | Manifest,
    out: str | Path,
    options: ExportSlicesOptions = ExportSlicesOptions(),
    *,
    progress: Progress = silent,
) -> SliceReport:
    """Write every slice of every case to ``out``, with masks of the same names.

    Args:
        data: a folder of scans with or without masks, a manifest, or a cohort in memory.
        out: a new or empty folder, or with ``overwrite`` one with an earlier export.
        options: see ``commands.options``.
        progress: see ``core.progress``.

    Raises:
        InputError, LayoutError, LabelError: no cohort can be made of ``data``, or no case of it can
            be exported.
        UsageError: options out of range, or structures that overlap.
        OutputError: ``out`` holds other files, or cannot be written.
    """
    _refuse_unfit(options)
    manifest, found = _cohort(data, options)
    folder = Path(out)
    given = [options.description, options.labels, None if isinstance(data, Manifest) else data]
    kept = originals([manifest], [path for path in given if path and Path(path).is_file()])
    earlier = _earlier(folder, options.overwrite)
    if earlier:
        kept.refuse_removing(folder)
    head = _head(manifest, options)
    with claimed(atomic.make_folder(folder) / CLAIM), kept.kept([folder / RECORD, folder / INDEX]):
        for path in earlier:
            path.unlink()
        atomic.remove_temporaries(folder)
        _write_record(folder, replace(head, writing=tuple(c.id for c in manifest)))
        outcomes = _export_all(manifest, head, options, folder, progress)
        cases = {one.value.id: one.value for one in outcomes if one.value is not None}
        done = replace(head, cases=cases)
        atomic.write_text(folder / INDEX, done.index())
        _write_record(folder, done)
    errors = [one.error for one in outcomes if one.error is not None]
    if not cases:
        raise errors[0]
    return SliceReport(
        folder,
        tuple(cases.values()),
        sum(1 for _ in done.rows()),
        (*found, *map(str, errors)),
        tuple(_notes(done, options)),
    )


def _export_all(
    manifest: Manifest,
    head: SliceSet,
    options: ExportSlicesOptions,
    folder: Path,
    progress: Progress,
) -> list[batch.Outcome[ExportedCase]]:
    header = replace(manifest, cases=())
    return batch.run(
        _export,
        [_Job(case, header, head, options.views, folder) for case in manifest],
        names=[case.id for case in manifest],
        workers=options.workers,
        stage="export",
        progress=progress,
    )


def _refuse_unfit(options: ExportSlicesOptions) -> None:
    for what, given, allowed in (
        ("--view", options.views, tuple(VIEWS)),
        ("--masks", (options.masks,), MASKS),
        ("--format", (options.form,), tuple(ENDINGS)),
    ):
        wrong = [word for word in given if word not in allowed]
        if wrong or not given:
            raise UsageError(
                f"{what} is one of {', '.join(allowed)}, found {', '.join(wrong) or 'none'}"
            )
    if options.bits not in (None, 8, 16):
        raise UsageError(f"--bits is 8 or 16, found {options.bits}")
    if options.window is not None and options.form == "npy" and options.bits is None:
        raise UsageError("--window scales intensities to pixels; for npy add --bits 8 or --bits 16")


def _cohort(
    data: str | Path | Manifest, options: ExportSlicesOptions
) -> tuple[Manifest, tuple[str, ...]]:
    """The cases with their sides, and what is wrong with others."""
    failures: tuple[str, ...] = ()
    if isinstance(data, Manifest):
        manifest = data
    else:
        found = discover(data, **found_by(options))
        manifest = found.manifest
        failures = tuple(
            f"{f.case}: {f.message}" for f in found.findings if f.severity == "error" and f.case
        )
    if options.split:
        manifest = read_split(str(options.split)).divide(manifest, options.seed)
    if not manifest.cases:
        raise InputError("has no cases to export", path=manifest.root)
    if manifest.labels.overlapping:
        raise UsageError(
            f"{', '.join(manifest.labels.names[:5])} may overlap, and a mask has one structure for "
            "each pixel; select structures that exclude each other with --labels"
        )
    return manifest, failures


def _earlier(folder: Path, overwrite: bool) -> list[Path]:
    """The files of an earlier export in ``folder``, which are replaced.

    Raises:
        OutputError: it holds an export that is not to be replaced, or other files.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    if not (folder / RECORD).is_file():
        raise OutputError("holds other files; slices need a new or an empty folder", path=folder)
    if not overwrite:
        raise OutputError("holds exported slices; --overwrite replaces them", path=folder)
    return list(SliceSet.load(folder).files_in(folder))


def _head(manifest: Manifest, options: ExportSlicesOptions) -> SliceSet:
    ignoring = bool(manifest.mapping.ignore)
    return SliceSet(
        options.form,
        options.bits or (0 if options.form == "npy" else 16),
        options.window,
        folders_of(manifest.channels),
        manifest.labels,
        MaskCodes.of(manifest.labels, options.masks, ignoring),
        given_options(options),
    )


def _write_record(folder: Path, found: SliceSet) -> None:
    atomic.write_text(folder / RECORD, json.dumps(found.to_json(), indent=1))


@dataclass(frozen=True)
class _Job:
    case: Case
    header: Manifest
    head: SliceSet
    views: tuple[str, ...]
    out: Path


def _export(job: _Job) -> ExportedCase:
    image = read_image(job.case, job.header)
    label = read_label(job.case, job.header, image.grid) if job.case.label else None
    with atomic.together():
        return write_case(job.case, image, label, job.head, job.views, job.out)


def _notes(done: SliceSet, options: ExportSlicesOptions) -> list[str]:
    """What is not the same again after merging, and views that were left out."""
    notes = []
    lossy = [case for case in done.cases.values() if not case.is_exact]
    if lossy:
        outside = max(case.clipped for case in lossy)
        words = f", and up to {100 * outside:.0f} % of a scan's voxels are outside the window"
        notes.append(
            f"the intensities of {len(lossy)} of {len(done.cases)} cases cannot be rebuilt exactly "
            f"from {done.bits} bits: they change by at most "
            f"{max(case.max_error for case in lossy):.3g}{words if outside else ''}; --format npy "
            "without --bits keeps them as they are (masks are exact)"
        )
    else:
        notes.append("merge-slices rebuilds every voxel exactly")
    flat = [case.id for case in done.cases.values() if set(case.views) != set(options.views)]
    if flat:
        notes.append(
            f"{len(flat)} cases have a single slice and were written in its plane ({_few(flat)})"
        )
    return notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")

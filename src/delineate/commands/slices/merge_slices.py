"""Merge slices: the volumes of exported slices, or of masks predicted on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core import atomic
from ...core.errors import InputError, OutputError, UsageError
from ...core.labels import IGNORED
from ...core.outputs import Originals
from ...core.progress import Progress, silent
from ...core.terms import channel_of, is_known_channel, read
from ...execution import local as batch
from ...formats import files
from ...formats.slices.cases import read_images, read_masks
from ...formats.slices.pixels import MASKS, MaskCodes
from ...formats.slices.record import MASKS_FOLDER, ExportedCase, SliceSet, seen
from ..options import MergeSlicesOptions


@dataclass(frozen=True)
class MergeReport:
    """The files written, one sentence for each case that could not be merged, and notes."""

    written: tuple[Path, ...]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def merge_slices(
    slices: str | Path,
    out: str | Path,
    options: MergeSlicesOptions = MergeSlicesOptions(),
    *,
    progress: Progress = silent,
) -> MergeReport:
    """Rebuild volumes on the grids of the exported scans.

    Without ``masks`` every case gives ``OUT/images/CASE.nii.gz`` and ``OUT/labels/CASE.nii.gz``;
    with a folder of ``masks``, ``OUT/CASE.nii.gz``. Images of several channels are called
    ``CASE_t1``, ``CASE_flair`` ..., or ``CASE_0000``, ``CASE_0001`` ... if a channel has no known
    name.

    Args:
        slices: the folder that ``export-slices`` wrote.
        out: a folder.
        options: see ``commands.options``.
        progress: see ``core.progress``.

    Raises:
        InputError: no record of slices, or no case can be merged.
        UsageError: options out of range, a view that was not exported, or masks whose values can
            mean two things.
        OutputError: a file exists, is read by this command, or cannot be written.
    """
    head, place, folder = SliceSet.load(slices), Path(slices), Path(out)
    _refuse_unfit(head, options)
    if options.masks is None:
        jobs = [
            _Job(case, head, _view(case, options), place, folder, options.form)
            for case in head.cases.values()
        ]
        failures: list[str] = []
    else:
        jobs, failures = _of_masks(head, place, Path(options.masks), folder, options)
    with _kept(head, place, options, [path for job in jobs for path in job.targets]):
        atomic.make_folder(folder)
        outcomes = batch.run(
            _merge,
            jobs,
            names=[job.case.id for job in jobs],
            workers=options.workers,
            stage="merge",
            progress=progress,
        )
    errors = [one.error for one in outcomes if one.error is not None]
    written = tuple(path for one in outcomes for path in one.value or ())
    if not written:
        raise errors[0] if errors else InputError("; ".join(failures) or "has no cases", path=place)
    return MergeReport(written, (*failures, *map(str, errors)), _notes(head, options))


def _refuse_unfit(head: SliceSet, options: MergeSlicesOptions) -> None:
    if options.view is not None and options.view not in head.views:
        raise UsageError(
            f"--view {options.view} was not exported; there are {', '.join(head.views) or 'none'}"
        )
    if options.kind not in (None, *MASKS):
        raise UsageError(f"--values is one of {', '.join(MASKS)}, found {options.kind}")
    if f".{options.form}" not in files.writable() or options.form in ("png", "mhd"):
        raise UsageError(f"--format {options.form} cannot hold volumes; nii.gz, nrrd and mha can")


@contextlib.contextmanager
def _kept(
    head: SliceSet, place: Path, options: MergeSlicesOptions, targets: Sequence[Path]
) -> Iterator[None]:
    """Protect what is read.

    Raises:
        OutputError: a target is read, or exists and is not to be replaced.
    """
    masks = [options.masks] if options.masks is not None else []
    with Originals([*head.files_in(place), *masks]).kept(targets):
        existing = [path for path in targets if path.exists()]
        if existing and not options.overwrite:
            raise OutputError("exists already; --overwrite replaces it", path=existing[0])
        yield


def _notes(head: SliceSet, options: MergeSlicesOptions) -> tuple[str, ...]:
    notes = []
    lossy = [case.id for case in head.cases.values() if not case.is_exact]
    if lossy and options.masks is None:
        notes.append(f"the export of {len(lossy)} cases rounded or clipped intensities")
    if head.codes.ignored is not None:
        notes.append(f"ignored voxels have the value {IGNORED}; read with --ignore {IGNORED}")
    return tuple(notes)


def _view(case: ExportedCase, options: MergeSlicesOptions) -> str:
    return options.view if options.view in case.views else case.views[0]


@dataclass(frozen=True)
class _Job:
    """One case to merge: from its own slices in ``view``, or from the ``masks`` of its slices."""

    case: ExportedCase
    head: SliceSet
    view: str
    place: Path
    out: Path
    form: str
    masks: tuple[Path, ...] = ()
    codes: tuple[MaskCodes, ...] = ()

    @property
    def targets(self) -> list[Path]:
        """The files it writes: those of the channels, then the mask."""
        name = self.case.id
        if self.masks:
            return [self.out / f"{name}.{self.form}"]
        names = _names_of_channels(name, self.head.channels)
        images = [self.out / "images" / f"{one}.{self.form}" for one in names]
        label = self.out / "labels" / f"{name}.{self.form}"
        return [*images, label] if self.case.has_mask else images


def _names_of_channels(case: str, channels: Mapping[str, str]) -> list[str]:
    """Names of the files of a case: they end with the name of the channel if each reads back as its
    channel, else with its number.
    """
    if len(channels) == 1:
        return [case]
    names = [f"{case}_{folder}" for folder in channels.values()]
    known = [is_known_channel(channel) and channel_of(channel) for channel in channels]
    found = [read(name, in_file_name=True).identity for name in names]
    if found == known and len(set(found)) == len(found):
        return names
    return [f"{case}_{n:04d}" for n in range(len(channels))]


def _merge(job: _Job) -> list[Path]:
    case, head, targets = job.case, job.head, job.targets
    if job.masks:
        mask = read_masks(case, head, job.view, job.masks, job.codes)
        files.write(mask, targets[0], labels=head.labels)
        return targets
    # Both are read before anything is written.
    image = read_images(case, head, job.view, job.place)
    own = [job.place / job.view / MASKS_FOLDER / name for name in _names(case, head, job.view)]
    label = read_masks(case, head, job.view, own, [head.codes]) if case.has_mask else None
    for channel, path in zip(image.channels_array, targets, strict=False):
        files.write(image.with_array(channel), path)
    if label is not None:
        files.write(label, targets[-1], labels=head.labels)
    return targets


def _of_masks(
    head: SliceSet, place: Path, masks: Path, out: Path, options: MergeSlicesOptions
) -> tuple[list[_Job], list[str]]:
    """The cases of which ``masks`` has slices, and a sentence for each that lacks some.

    Raises:
        InputError: no such folder, two masks of one name, or no mask with the name of a slice.
        UsageError: masks of several views.
    """
    if not masks.is_dir():
        raise InputError("no such folder of masks", path=masks)
    kinds = dict.fromkeys([head.codes.kind, "index"] if options.kind is None else [options.kind])
    ignoring = head.codes.ignored is not None
    codes = tuple(MaskCodes.of(head.labels, kind, ignoring) for kind in kinds)
    by_stem = _by_stem(masks)
    jobs, failures, views = [], [], set()
    for case in head.cases.values():
        for view in case.views if options.view is None else (options.view,):
            stems = [files.stem(name) for name in _names(case, head, view)]
            missing = [stem for stem in stems if stem not in by_stem]
            if len(missing) == len(stems):
                continue
            views.add(view)
            if missing:
                failures.append(
                    f"{case.id}: {len(missing)} of {len(stems)} {view} masks are missing in "
                    f"{masks}, such as {missing[0]}"
                )
                continue
            chosen = tuple(by_stem[stem] for stem in stems)
            jobs.append(_Job(case, head, view, place, out, options.form, chosen, codes))
    if len(views) > 1:
        raise UsageError(f"there are masks of {' and '.join(sorted(views))}; choose one by --view")
    if not views:
        first = next(head.rows(), {"case": "none"})
        raise InputError(
            f"no mask here has the name of an exported slice ({first['case']} ...)", path=masks
        )
    return jobs, failures


def _by_stem(masks: Path) -> dict[str, Path]:
    """Name without its ending -> file, of all files below ``masks``."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in masks.rglob("[!.]*") if p.is_file()):
        if (stem := files.stem(path)) in found:
            raise InputError(f"has the same name as {found[stem]}", path=path)
        found[stem] = path
    return found


def _names(case: ExportedCase, head: SliceSet, view: str) -> list[str]:
    return [head.name(case.id, view, k) for k in range(seen(case.grid, view)[0].shape[2])]

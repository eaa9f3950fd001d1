"""Convert: an image or DICOM folder from one format to another, cut into parts or merged.

Conversion keeps the position and the value of every voxel: nothing is resampled. ``orientation``
only transposes and flips the axes. Parts are merged by their positions
(``preprocessing/parts.py``), never by their names. This module knows no labels and no models.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...cohorts.discovery.dicom_rules import DicomRules
from ...cohorts.discovery.layouts.scans_only import NAMELESS
from ...core import atomic
from ...core.errors import DelineateError, FormatError, InputError, OutputError, UsageError
from ...core.grid import Grid
from ...core.manifest import Source
from ...core.outputs import Originals
from ...core.progress import Progress, silent
from ...core.volume import Volume
from ...execution.executor import Work
from ...execution.local import Outcome
from ...formats import arrays, dicom, files, label_files, raster
from ...formats.dicom.remote import is_remote
from ...formats.polygons import Rule
from ...formats.slices.pixels import Scale
from ...formats.slices.record import ENDINGS, VIEWS
from ...preprocessing.parts import merged, split
from ..options import ConvertOptions, EngineOptions, reads_images
from . import images, structure_sets
from .deidentification import deidentify
from .fix_record import fix_record, record_path
from .outputs import PICTURES, form_of, refuse_unfit

log = logging.getLogger(__name__)
NRRD = (".nrrd", ".nhdr")
ROUNDING_MM = 1e-3
_SLICE = re.compile(r"(\d+_)?slice_\d+\.(png|tif|dcm)")


@dataclass(frozen=True)
class ConversionReport:
    """The files written, the series and damaged files refused (title, reason), notes for the user,
    and records of series that were made even (``fix_record``).
    """

    written: tuple[Path, ...]
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    records: tuple[Path, ...] = ()

    @property
    def failures(self) -> list[str]:
        """The refused series, those with equal reasons together; empty if there are none."""
        if len(self.refused) < 2:
            return [f"{title}: {reason}" for title, reason in self.refused]
        return [f"{len(self.refused)} series or files: {dicom.table(self.refused)}"]


@reads_images
def convert(
    inputs: Sequence[str | Path],
    output: str | Path,
    options: ConvertOptions = ConvertOptions(),
    *,
    progress: Progress = silent,
) -> ConversionReport:
    """Write a scan as ``output``, whose ending names the format.

    An ``output`` without an ending is a folder. A DICOM folder of several series gives one
    ``.nii.gz`` file per series there; series that cannot be read are refused with the reason, and
    the others are written. Any other input gives PNG slices. ``form`` chooses a folder of slices in
    PNG, TIFF or DICOM instead; ``NAME.dcm`` is one DICOM file. With ``split_slices`` each volume
    becomes ``NAME_00``, ``NAME_01`` ...: ``.nii.gz`` files with the input's name if ``output`` is
    a folder, else files with the stem and ending of ``output``. ``NAME.seg.dcm`` and
    ``NAME.rtstruct.dcm`` are a segmentation and a structure set with the masks of the input, a
    label file, on the series ``like``. With ``deidentify`` a folder gets DICOM files; any other
    output is made of de-identified ones.

    Args:
        inputs: one file, DICOM folder or folder of slices; to merge, several files or folders of
            volumes.
        output: a file or a folder.
        options: see ``commands.options``.
        progress: see ``core.progress``.

    Raises:
        InputError: the input cannot be read; of several series, none can.
        UsageError: several inputs that are not to be merged, or options that exclude each other;
            ``split_slices`` below 1, or ``axes`` for a file that stores its axes.
        OutputError: an output is a file that is read; it exists and ``overwrite`` is False; the
            folder holds other parts of the same name; or it cannot be written.
    """
    _refuse_unfit(inputs, options)
    refuse_unfit(Path(output), options)
    if options.merge:
        return _merge(inputs, Path(output), options.overwrite)
    if options.deidentify:
        return _deidentify(Path(inputs[0]), Path(output), _alone(options), progress)
    if Path(output).name.lower().endswith(structure_sets.ENDINGS):
        return _convert_masks(Path(inputs[0]), Path(output), _alone(options))
    return _convert(inputs[0], output, options, progress)


def _alone(options: ConvertOptions) -> ConvertOptions:
    """The options without the engine, which a single volume does not need.

    Raises:
        UsageError: a single volume has no shards, and no limits.
    """
    if not options.work.shard.is_whole:
        raise UsageError(
            "--shard divides the series of a DICOM folder, each of which becomes a file; this "
            "conversion has one result"
        )
    if options.work.limits:
        raise UsageError(
            "--case-timeout and --case-memory are limits of the series of a DICOM folder, each of "
            "which becomes a file; this conversion has one result"
        )
    return replace(options, **vars(EngineOptions()))


def _refuse_unfit(inputs: Sequence[str | Path], options: ConvertOptions) -> None:
    if options.merge:
        if replace(_alone(options), merge=False, overwrite=False) != ConvertOptions():
            raise UsageError(
                "--merge joins volumes as they are and takes none of --spacing, --axes, "
                "--orientation, --series and --split-slices"
            )
    elif any(map(is_remote, inputs)):
        raise UsageError(
            "convert reads files; predict fetches the series of an archive, which it does not keep"
        )
    elif len(inputs) != 1:
        raise UsageError(
            f"one input is converted at a time, found {len(inputs)}; --merge joins several"
        )
    if not options.deidentify and (options.key or options.pseudonyms or options.blacken):
        raise UsageError("--key, --pseudonyms and --blacken are for --deidentify")
    if options.unit not in ("", "suv"):
        raise UsageError(f'--unit is "suv", found "{options.unit}"')
    if options.rule not in ("centre", "area"):
        raise UsageError(f"--rule is centre or area, found {options.rule}")
    if options.bits not in (8, 16):
        raise UsageError(f"--bits is 8 or 16, found {options.bits}")
    if options.split_slices is not None and options.split_slices < 1:
        raise UsageError(f"--split-slices must be at least 1, found {options.split_slices}")


def _deidentify(
    source: Path, output: Path, options: ConvertOptions, progress: Progress
) -> ConversionReport:
    """De-identified DICOM files in a folder, or a file that is made of such files."""
    plain = replace(options, deidentify=(), key=None, pseudonyms=None, blacken=())
    if "." not in output.name:
        if replace(plain, overwrite=False) != ConvertOptions():
            raise UsageError(
                "--deidentify to a folder writes every DICOM object as it is, and takes no other "
                "options than --key, --pseudonyms, --blacken and --overwrite"
            )
        with _originals([source]).kept():
            done = deidentify(files.place_of(source), output, options, progress)
        return ConversionReport(done.folders, done.refused, done.notes)
    with _originals([source]).kept([output]), tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "input"
        done = deidentify(files.place_of(source), clean, options, progress)
        uid, _, part = (options.series or "").partition("/")
        new_uid = done.profile.pseudonyms.uid(uid)
        if options.like is not None:
            like = Path(folder) / "like"
            place, named = files.place_and_series(options.like)
            deidentify(place, like, options, progress)
            chosen = done.profile.pseudonyms.uid(named)
            plain = replace(plain, like=f"{like}#{chosen}" if chosen else like)
        plain = replace(plain, series=f"{new_uid}/{part}" if part else new_uid or None)
        written = [path for one in done.folders for path in one.iterdir()]
        report = _convert(written[0] if len(written) == 1 else clean, output, plain, progress)
    return replace(
        report,
        refused=(*done.refused, *report.refused),
        notes=(*done.notes, *report.notes),
    )


def _convert(
    input: str | Path, output: str | Path, options: ConvertOptions, progress: Progress
) -> ConversionReport:
    place = files.place_of(input)
    if labels := label_files.dicom_labels_in(place):
        return _convert_labels(labels, _Writer(Path(output), _alone(options)))
    split_slices = options.split_slices
    write = _Writer(Path(output), options)
    many, left_out = _many(input, output, options)
    groups = _groups(many, options.joined)
    heads = _heads(groups, Path(output))
    to_files = split_slices is None and options.window is None and write.form not in PICTURES
    several = len(heads) > 1 or (bool(heads) and to_files)
    work = options.work if several else _alone(options).work
    if several and (options.window is not None or write.form in PICTURES):
        raise UsageError(
            f"pictures are of one series, and there are {len(heads)}; name one with --series"
        )
    names = (
        _names(heads, Path(output))
        if several
        else [files.stem(_named(input)) if split_slices else ""]
    )
    given = _given(input, options)
    with _originals(given).kept(path for name in names for path in write.existing(name)):
        if several:
            report = _convert_series(groups, names, write, work, progress, str(input))
            return replace(report, refused=(*report.refused, *left_out))
        is_array = place.is_file() and files.detect(place) in arrays.KINDS
        volume = files.read(_source(input, options, is_array), unit="suv" if options.unit else "")
        if is_array:  # its axes are read
            write = replace(write, options=replace(options, axes=None))
        volume, lost = _with_names(volume, Path(output), write.form if to_files else "png")
        notes = (
            *volume.meta.get("notes", ()),
            *lost,
            *_notes(volume, options.axes),
            *_unplaced(volume, Path(output)),
        )
        done = write(volume, names[0])
        return replace(done, notes=(*notes, *done.notes))


def _source(path: str | Path, options: ConvertOptions, is_array: bool) -> Source:
    return Source(
        str(path),
        series=options.series or "",
        spacing_mm=options.spacing_mm,
        axes=(options.axes or "") if is_array else "",
        fix_series=options.fix_series or "",
    )


def _convert_labels(path: Path, write: _Writer) -> ConversionReport:
    """Write the labels of a DICOM object: as one file, or as a folder with a mask for each
    structure.
    """
    options = write.options
    rules = DicomRules.of(options.fix_series, options.register_by)
    source = Source(
        str(path),
        like=str(options.like or label_files.series_near(path, rules.fix_series)),
        item=options.segment or "",
        register_by=rules.register_by,
        fix_series=rules.fix_series,
    )
    threshold = None if options.shares else options.threshold
    rule: Rule = "area" if options.rule == "area" else "centre"
    volume = label_files.read_label_file(source, threshold=threshold, rule=rule)
    parts = label_files.masks_of(volume) if write.is_folder else {"": label_files.as_codes(volume)}
    targets = [target for name in parts for target in write.existing(name)]
    with _originals(_given(path, options)).kept(targets):
        done = [write(part, name) for name, part in parts.items()]
    written = tuple(path for one in done for path in one.written)
    records = tuple(path for one in done for path in one.records)
    return ConversionReport(written, (), tuple(volume.meta.get("notes", ())), records)


def _convert_masks(masks: Path, target: Path, options: ConvertOptions) -> ConversionReport:
    """Write masks as a segmentation or structure set of their series."""
    with _originals(_given(masks, options)).kept([target]):
        notes = structure_sets.masks_to_object(masks, target, options)
    return ConversionReport((target,), notes=notes)


def _with_names(volume: Volume, output: Path, form: str) -> tuple[Volume, tuple[str, ...]]:
    """The labels of a file that names its structures, so that their names are written too; with a
    sentence about names that ``output`` cannot keep. Any other volume as it is.
    """
    stated = label_files.segments_of(volume.meta.get("segments", {}))
    names = volume.meta.get("names") or {one.value: one.name for one in stated}
    is_kept = stated and output.suffix.lower() in NRRD  # with all fields
    if not names or is_kept or form in (*PICTURES, "dicom"):
        return volume, ()
    array = volume.array
    if array.ndim == 4 or array.dtype.kind not in "iu" or array.min() < 0 or 0 in names:
        return volume, (
            f"the file names {len(stated) or len(names)} structures, and {output.name} does not: "
            "its values or channels are written as they are stored; a .seg.nrrd file keeps layers",
        )
    return replace(volume, unit="label", meta=volume.meta | {"names": names}), ()


def _unplaced(volume: Volume, output: Path) -> tuple[str, ...]:
    """What a plain array loses."""
    if output.suffix.lower() != ".npy":
        return ()
    spacing = ",".join(f"{s:g}" for s in volume.spacing_mm)
    return (
        f"{output} has no geometry: the array has the axes {volume.grid.codes} and a spacing of "
        f"{spacing} mm; an .npz file keeps both",
    )


def _given(input: str | Path, options: ConvertOptions) -> list[str | Path]:
    """What a conversion reads: the input, and the image of ``like``."""
    return [input, options.like] if options.like else [input]


def _originals(inputs: Sequence[str | Path]) -> Originals:
    """The files that a conversion reads, with their companions, and folders of slices."""
    places = [files.place_of(one) for one in inputs]
    beside = [path for place in places if place.is_file() for path in files.companions(place)]
    return Originals([*places, *beside], files.is_slice_of)


def _merge(inputs: Sequence[str | Path], target: Path, overwrite: bool) -> ConversionReport:
    """Merge consecutive volumes into one file; the inverse of ``split_slices``.

    Order and axis follow from the positions of the voxels; see ``parts.merged`` for what is
    refused. A part that is missing at either end cannot be detected. An earlier result among the
    inputs is left out.

    Raises:
        InputError: no volumes, or a file that cannot be read.
        GeometryError: the volumes are not consecutive; names the files and the distance in mm.
        OutputError: as for ``convert``; or ``target`` has no ending, or is one of the volumes.
    """
    if "." not in target.name:
        raise OutputError(
            "a merged volume is one file; its name needs an ending, one of "
            f"{', '.join(ending for ending in files.writable() if ending != '.png')}",
            path=target,
        )
    _originals([path for path in inputs if not Path(path).is_dir()]).refuse(_with_data(target))
    found = [path for one in inputs for path in _volumes_in(Path(one))]
    paths = [path for path in found if not _is_same(path, target)]
    if not paths:
        raise FormatError(
            f"no volumes here; supported formats: {files.READABLE}",
            path=inputs[0] if inputs else None,
        )
    with _originals(paths).kept(_with_data(target)):
        whole = merged([files.read(path) for path in paths])
        if len(paths) < len(found) and not _holds(target, whole):
            raise OutputError(
                "is in the folder of the volumes and differs from the merged volume, so it may be "
                "one of them; choose another output",
                path=target,
            )
        _refuse_existing(target, overwrite, whole)
        files.write(whole, target)
    return ConversionReport((target,), notes=_merge_notes(paths))


def _holds(target: Path, whole: Volume) -> bool:
    """Whether the file is this volume: an earlier result of the same parts."""
    # Formats store positions with fewer digits.
    if not files.read_grid(target).matches(whole.grid, ROUNDING_MM):
        return False
    return np.array_equal(files.read(target).array, whole.array)


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def _with_data(target: Path) -> tuple[Path, ...]:
    """The file, and the file with the voxels if the format has a separate one."""
    return (target, target.with_suffix(".raw")) if target.suffix.lower() == ".mhd" else (target,)


def _merge_notes(paths: Sequence[Path]) -> tuple[str, ...]:
    """What geometry cannot show: a part may be missing before the first one."""
    if len(paths) == 1:
        return (f"{paths[0]} is the only volume: nothing was merged",)
    numbers = [re.search(r"_(\d+)$", files.stem(path)) for path in paths]
    lowest = min((int(found[1]) for found in numbers if found), default=0)
    if all(numbers) and lowest > 1:
        return (
            f"the names of the parts begin at number {lowest}; a part missing at an end leaves no "
            "gap, so check that none is",
        )
    return ()


def _volumes_in(path: Path) -> Iterator[Path]:
    """The file itself, or the image files of a folder in natural order of their names; only the
    header of a pair of files.
    """
    if not path.is_dir():
        yield path
        return
    found = sorted(
        (p for p in path.iterdir() if not p.name.startswith(".") and files.is_image(p)),
        key=lambda p: files.natural_key(p.name),
    )
    if found and files.detect(found[0]) == "DICOM":
        raise FormatError(
            "these are slices of DICOM series; convert joins them without --merge",
            path=path,
        )
    yield from (
        p
        for p in found
        if not (
            p.name.lower().removesuffix(".gz").endswith(".img")
            and files.detect(p) in ("NIfTI pair", "Analyze 7.5")
        )
    )


def _many(
    source: str | Path, output: str | Path, options: ConvertOptions
) -> tuple[list[dicom.Series], tuple[tuple[str, str], ...]]:
    """The series of a DICOM folder or file that become files of a folder, and damaged files that
    may belong to any of them, with the reason; empty if one volume becomes one file.
    """
    changes = options.joined or options.fix_series
    is_one = options.series or "." in Path(output).name
    may_hold_several = files.is_folder(source) or (
        Path(source).is_file() and files.detect(source) == "DICOM"
    )
    if not may_hold_several or (is_one and not changes):
        return [], ()
    found, others = dicom.find(source, fix_series=options.fix_series or "")
    if options.series:
        found = [one for one in found if one.is_chosen_by(options.series)]
    damaged = [(str(path), what) for path, what in others if what.startswith(dicom.DAMAGED)]
    return found, tuple(damaged)


def _groups(many: Sequence[dicom.Series], joined: bool) -> list[list[dicom.Series]]:
    """The series of each output: one, or those at the same positions."""
    return dicom.at_same_positions(many) if joined else [[one] for one in many]


@dataclass(frozen=True)
class _Writer:
    """Writes the volumes of one conversion; called with a volume and its name in a folder ("" if
    ``output`` is the file).
    """

    output: Path
    options: ConvertOptions

    def __call__(self, volume: Volume, name: str) -> ConversionReport:
        axes, options, read = self.options.axes, self.options, volume
        volume = _with_axes(volume, axes) if axes else volume
        orientation = VIEWS[options.view] if options.view else options.orientation
        volume = volume.reorient(orientation) if orientation else volume
        if options.split_slices:
            return self._write_parts(volume, name, read)
        if self.form == "dicom":
            target = self.output / name if name else self.output
            records = fix_record(read, target, volume.grid, options)
            images_done = images.volume_to_dicom(volume, target, options)
            return ConversionReport(images_done.paths, (), images_done.notes, _kept(records))
        if options.window is not None:
            volume = _windowed(volume, options.window, options.bits)
        target = self.output / f"{name}.nii.gz" if name else self.output
        _refuse_existing(target, options.overwrite, volume)
        records = fix_record(read, target, volume.grid, options)
        labels = label_files.labels_of(volume)
        if self.form == "tiff":
            raster.write_pictures(volume, target, labels, ENDINGS["tiff"])
        else:
            files.write(volume, target, labels=labels)
        written = sorted(target.glob("slice_*.*")) if target.is_dir() else [target]
        return ConversionReport(tuple(written), records=_kept(records))

    @property
    def form(self) -> str:
        return form_of(self.output, self.options)

    @property
    def is_folder(self) -> bool:
        return "." not in self.output.name

    def existing(self, name: str) -> list[Path]:
        """Existing files that writing the volume ``name`` may replace, known before anything is
        read.
        """
        return [one for path in self._existing(name) for one in (path, record_path(path))]

    def _existing(self, name: str) -> list[Path]:
        if self.options.split_slices:
            stem, folder, ending = self._parts(name)
            pattern = re.compile(rf"{re.escape(stem)}_\d+{re.escape(ending)}")
            return [path for path in _entries(folder) if pattern.fullmatch(path.name)]
        if name and self.form != "dicom":
            return [self.output / f"{name}.nii.gz"]
        if "." in self.output.name:
            return list(_with_data(self.output))
        return [path for path in _entries(self.output / name) if _SLICE.fullmatch(path.name)]

    def _parts(self, name: str) -> tuple[str, Path, str]:
        """Stem, folder and ending of the parts of the volume called ``name``."""
        given = self.output.name
        stem = files.stem(given) if "." in given else name
        return (
            (stem, self.output.parent, given[len(stem) :])
            if "." in given
            else (stem, self.output, ".nii.gz")
        )

    def _write_parts(self, volume: Volume, name: str, read: Volume) -> ConversionReport:
        stem, folder, ending = self._parts(name)
        parts = split(volume, self.options.split_slices or volume.grid.shape[2])
        digits, records = max(2, len(str(len(parts) - 1))), dict[Path, dict[str, Any]]()
        targets = [folder / f"{stem}_{n:0{digits}d}{ending}" for n in range(len(parts))]
        self._refuse_other_parts(
            folder, re.compile(rf"{re.escape(stem)}_\d+{re.escape(ending)}"), targets
        )
        for target, part in zip(targets, parts, strict=True):
            _refuse_existing(target, self.options.overwrite, part)
            records |= fix_record(read, target, part.grid, self.options)
            files.write(part, target)
        return ConversionReport(tuple(targets), records=_kept(records))

    def _refuse_other_parts(
        self, folder: Path, pattern: re.Pattern[str], targets: Sequence[Path]
    ) -> None:
        names = {target.name for target in targets}
        others = sorted(
            p.name for p in _entries(folder) if pattern.fullmatch(p.name) and p.name not in names
        )
        # Files of smaller groups: read together, the volume would overlap itself.
        if others:
            raise OutputError(
                f"{len(targets)} parts would be ambiguous next to {others[0]} from another split; "
                "remove that file or choose another folder",
                path=folder,
            )


def _kept(records: Mapping[Path, Mapping[str, Any]]) -> tuple[Path, ...]:
    """Write the records of series that were made even."""
    for path, facts in records.items():
        atomic.write_json(path, facts)
    return tuple(records)


def _windowed(volume: Volume, window: tuple[float, float], bits: int) -> Volume:
    """The volume with pixels of ``bits``: black and white are the window's ends."""
    channels = [Scale.of(c, bits, window).to_pixels(c) for c in volume.channels_array]
    return volume.with_array(np.stack(channels).reshape(volume.shape), unit="a.u.")


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _named(path: str | Path) -> str:
    """The name of the input as the user knows it: for folders with the same name in every patient
    (such as DICOM_anon), the name of their parent.
    """
    place = Path(path).resolve()
    return (
        place.parent.name
        if place.is_dir() and place.name.lower() in NAMELESS and place.parent.name
        else place.name
    )


def _with_axes(volume: Volume, axes: str) -> Volume:
    """``volume`` with its stored axes in the directions ``axes``, centred at the origin.

    Raises:
        UsageError: the file stores its axes.
        GeometryError: ``axes`` is no orientation.
    """
    if volume.meta.get("place_known", True):
        raise UsageError(
            f"{volume.source} stores the directions of its axes ({volume.grid.codes}); --axes is "
            "for files that do not"
        )
    plain = Grid.from_spacing(volume.grid.shape, volume.grid.spacing_mm)
    # Refuses invalid codes; gives the world axis along which each stored axis runs.
    _, there = plain.reorient(axes)
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for stored, (world, flip) in enumerate(zip(there.order, there.flips, strict=True)):
        matrix[world, stored] = volume.grid.spacing_mm[stored] * (-1 if flip else 1)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(volume.grid.shape) - 1) / 2)
    return Volume(
        volume.array,
        Grid(volume.grid.shape, matrix),
        volume.unit,
        volume.source,
        {**volume.meta, "place_known": True},
    )


def _notes(volume: Volume, axes: str | None) -> tuple[str, ...]:
    """What the conversion had to assume."""
    if (
        axes
        or volume.meta.get("place_known", True)
        or not volume.meta.get("spacing_known", True)
        or volume.grid.shape[2] == 1
    ):
        return ()
    return (
        f"{volume.source} does not store the directions of its axes; {volume.grid.codes}, centred "
        "at the origin, is assumed; give others with --axes",
    )


@dataclass(frozen=True)
class _ConvertSeries:
    """The conversion of one output of several: its series and its name."""

    write: _Writer

    def __call__(self, job: tuple[Sequence[dicom.Series], str]) -> ConversionReport:
        group, name = job
        one = group[0]
        unit = self.write.options.unit if one.modality == "PT" else ""
        try:
            volume = (
                dicom.read_joined(group, unit) if len(group) > 1 else dicom.read_series(one, unit)
            )
        except DelineateError as error:
            return ConversionReport((), ((one.title, error.message),))
        notes = [f"series {s.uid}: {note}" for s in group for note in s.notes]
        notes += [f"series {one.uid}: {note}" for note in volume.meta.get("notes", ())]
        done = self.write(volume, name)
        notes += [f"series {one.uid}: {note}" for note in done.notes]
        return replace(done, notes=tuple(notes))


def _convert_series(
    groups: Sequence[Sequence[dicom.Series]],
    names: Sequence[str],
    write: _Writer,
    work: Work,
    progress: Progress,
    source: str,
) -> ConversionReport:
    """Convert the outputs of the shard of ``work``, each one case; on this machine one by one.

    Raises:
        FormatError: none of all can be converted. OutputError: one cannot be written.
    """
    own = [job for job in zip(groups, names, strict=True) if work.shard.has(job[1])]
    outcomes = work.run(
        _ConvertSeries(write),
        own,
        names=[group[0].title for group, _ in own],
        workers=1 if work.is_local else None,
        stage="convert",
        progress=lambda stage, done, total, note: progress(stage, done - 1, total, note),
        each=_stop_if_unwritten,
    )
    done = [o.value for o in outcomes if o.value is not None]
    lost = [(o.name, o.error.message) for o in outcomes if o.error is not None]
    refused = (*(one for report in done for one in report.refused), *lost)
    written = tuple(path for report in done for path in report.written)
    notes = dict.fromkeys(note for report in done for note in report.notes)
    if not work.shard.is_whole:
        notes[f"{work.shard}: {len(own)} of {len(names)} outputs"] = None
    elif not written:
        raise FormatError(
            f"none of {len(groups)} series can be converted: {dicom.table(refused)}", path=source
        )
    records = tuple(path for report in done for path in report.records)
    return ConversionReport(written, refused, tuple(notes), records)


def _stop_if_unwritten(outcome: Outcome[ConversionReport]) -> None:
    """Raise the error of an output that cannot be written: the next one cannot either."""
    if isinstance(outcome.error, OutputError):
        raise outcome.error
    if outcome.log:
        log.warning("%s: %s", outcome.name, outcome.log)


def _heads(groups: Sequence[Sequence[dicom.Series]], output: Path) -> list[dicom.Series]:
    """The series that names each output.

    Raises:
        UsageError: the output is a file, and there are several.
    """
    if "." in output.name and len(groups) > 1:
        raise UsageError(
            f"the input has {len(groups)} volumes, and {output} is one file; name one with "
            "--series, or a folder for the output"
        )
    return [replace(g[0], part=g[0].family) if len(g) > 1 else g[0] for g in groups]


def _names(series: Sequence[dicom.Series], output: Path) -> list[str]:
    """Readable names in the folder ``output``: number, modality, description, part; with the UID
    and then a count where these are not unique; "" if ``output`` is a file.
    """
    if "." in output.name:
        return [""] * len(series)

    def plain(series: dicom.Series) -> str:
        named = (series.number, series.modality, series.description, series.part)
        words = "_".join(word for word in named if word)
        return re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower() or "series"

    names = [plain(one) for one in series]
    # Several volumes of a series that joins groups of unequal size have one UID, too.
    uids = [one.uid.replace(".", "_") for one in series]
    places = [str(n + 1) for n in range(len(names))]
    for more in (uids, places):
        shared = {name for name, count in Counter(names).items() if count > 1}
        pairs = zip(names, more, strict=True)
        names = [f"{name}_{end}" if name in shared else name for name, end in pairs]
    return names


def _refuse_existing(path: Path, overwrite: bool, volume: Volume) -> None:
    """Refuse to replace anything but an earlier result of the same conversion."""
    existing = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    if existing and not overwrite and not _is_result(path, existing, volume):
        raise OutputError("exists already; --overwrite replaces it", path=path)


def _is_result(path: Path, existing: Sequence[Path], volume: Volume) -> bool:
    try:
        if path.is_dir():
            array = raster.read_stack(existing, (1, 1, 1), str(path)).array
            return np.array_equal(array, volume.array)
        return _holds(path, volume)
    except InputError:
        return False

"""Read a label file as it states itself: pictures with a palette by index, the segments of a
.seg.nrrd file by their own table of values, layers and names, the outlines of annotation programs,
DICOM segmentations, and the contours of RT structure sets.

A file that names its structures is returned with ``meta["names"]``, value -> name. Segments in
several layers become one label map if they do not overlap; if they do, one channel each, and
``meta["names"]`` has the number of the channel, from 1. This module knows no cohort;
``cohorts.reading`` converts the values to those of a cohort.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FormatError, LabelError
from ..core.grid import Grid
from ..core.inputs import reading_at_most
from ..core.labels import LabelSet
from ..core.manifest import Source
from ..core.volume import Volume
from . import apart, archive, arrays, dicom, files, nifti, outlines, raster, run_lengths, transfer
from .dicom import seg
from .disk import stems_of
from .polygons import Rule
from .raster import ALPHA, COLOURS

LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")  # these files change values, most of all at edges
# A JPEG of pure colours: the largest distance of a pixel from 0 and 255, the share of coloured
# pixels that are so near, and the share of all pixels that a colour has.
NEAR, PURE_SHARE, COLOUR_SHARE = 64, 0.75, 0.001
_KEY = re.compile(r"^Segment(\d+)_(Name|LabelValue|Layer)$")


@dataclass(frozen=True)
class Segment:
    """One segment of a file: its voxels have ``value`` in channel ``layer``."""

    name: str
    value: int
    layer: int


def read_label_file(
    path: str | Path | Source,
    *,
    by_index: bool = True,
    grid: Grid | None = None,
    threshold: float | None = seg.HALF,
    only: Collection[str] | None = None,
    rule: Rule = "centre",
) -> Volume:
    """Read label values (I, J, K), or colours or channels (C, I, J, K), before any mapping.

    Args:
        by_index: False reads the colours of a palette instead of its indices.
        grid: on which DICOM labels are put if ``source.like`` does not name an image.
        threshold: of fractional segmentations, see ``seg.read_seg``.
        only: names of the structures that are needed; a structure set has no others then.
        rule: of ``polygons.inside_polygons``, for the contours of structure sets.

    Raises:
        FormatError, GeometryError: see ``files.read``.
        LabelError: two segments of one layer share a value, or a layer does not exist.
    """
    source = path if isinstance(path, Source) else Source(str(path))
    if files.is_for_child(source):
        plain = None if grid is None else grid.to_json()
        names = None if only is None else list(only)
        arguments = (source, by_index, plain, threshold, names, rule)
        return transfer.to_volume(files.in_child("label_files:sent_labels", *arguments))
    if found := dicom_labels_in(Path(source.path)):
        return _of_dicom(found, source, grid, threshold, only, rule)
    if outlines.may_hold(Path(source.path)):
        return _drawn(source)
    volume = _in_pure_colours(_opaque(files.read(source, by_index=by_index)), source.path)
    segments = segments_of(volume.meta.get("segments", {}))
    return _one_map(volume, segments) if segments else volume


def dicom_labels_in(path: Path) -> Path | None:
    """The RT structure set or DICOM segmentation at a path: the file itself, or the only file of a
    folder; else None.
    """
    if path.is_dir():
        members = [p for p in path.iterdir() if not p.name.startswith(".")]
        path = members[0] if len(members) == 1 else path
    return path if dicom.kind_of(path) else None


def _of_dicom(
    path: Path,
    source: Source,
    grid: Grid | None,
    threshold: float | None,
    only: Collection[str] | None,
    rule: Rule,
) -> Volume:
    """The labels of a DICOM object on the grid of ``source.like``, else on ``grid``. Without both,
    contours are drawn on the series that they belong to, and a segmentation keeps the grid of its
    frames.
    """
    contours, frame, meta = dicom.kind_of(path) == "RTSTRUCT", "", dict[str, Any]()
    places: dicom.Places | None = None
    item = [source.item] if source.item else None
    if source.like or (contours and grid is None):
        grid, frame, places, meta = _image_of(path, source)
    frame = "" if source.register_by == "position" else frame
    if contours:
        assert grid is not None
        names = item or only
        options: dict[str, Any] = {"only": names, "rule": rule, "places": places}
        volume = dicom.read_rtstruct(path, grid, frame_of_reference=frame, **options)
    else:
        options = {"threshold": threshold, "only": item, "places": places}
        volume = seg.read_seg(path, grid, frame_of_reference=frame, **options)
    more = meta.pop("notes", [])
    if note := meta.get("fixed"):
        more.append(f"its series is {note}")
    if more:
        meta["notes"] = [*volume.meta.get("notes", ()), *more]
    return replace(volume, meta=volume.meta | meta)


def labels_of(volume: Volume) -> LabelSet | None:
    """The structures of labels that a DICOM object states, or of its codes (``as_codes``); None for
    any other volume.
    """
    if volume.unit != "label" or not volume.meta.get("names"):
        return None
    overlapping = volume.meta.get("overlapping", volume.channels > 1)
    stated = volume.meta.get("labels")
    if stated is None:
        return LabelSet.from_names(volume.meta["names"], overlapping)
    return LabelSet.from_json(stated, overlapping)


def as_codes(volume: Volume) -> Volume:
    """The labels of a DICOM object as one map (I, J, K): of structures that overlap, their codes.

    Raises:
        LabelError: more structures overlap than codes can hold.
    """
    if volume.unit != "label" or volume.array.ndim == 3:
        return volume
    labels = labels_of(volume)
    assert labels is not None
    codes = np.zeros(volume.grid.shape, labels.dtype)
    for value, mask in zip(labels.values, volume.array, strict=True):
        labels.add(codes, mask > 0, value)
    return replace(volume.with_array(codes), meta=volume.meta | {"overlapping": True})


def masks_of(volume: Volume) -> dict[str, Volume]:
    """The mask of each structure of a DICOM object by the stem of a file for it; shares of a
    fractional segmentation likewise.
    """
    labels = labels_of(volume.with_unit("label"))
    assert labels is not None
    masks = {}
    for n, (stem, label) in enumerate(zip(stems_of(labels), labels, strict=True)):
        layered = volume.array.ndim == 4
        array = volume.array[n] if layered else (volume.array == label.value).astype(np.uint8)
        only = replace(label, value=1)
        meta = {"names": {1: label.name}, "labels": LabelSet((only,)).to_json()}
        masks[stem] = replace(volume, array=array, meta=volume.meta | meta)
    return masks


def series_near(path: Path, fix_series: str = "") -> str:
    """The series that a DICOM object belongs to, as a path that ``files.read`` accepts; "" if it is
    not in the folder of the object or those above.
    """
    try:
        series = dicom.series_of_label(path, fix_series)
    except FormatError:
        return ""
    return f"{dicom.place_of(series)}#{series.id}"


def _image_of(path: Path, source: Source) -> tuple[Grid, str, dicom.Places | None, dict[str, Any]]:
    """The grid of the image of a DICOM object, the frame of reference that the object must have (""
    if any), where the images of its series are, and what is known of the patient. The image is
    ``source.like``, or the series that the object belongs to.
    """
    like = source.like
    place, uid = files.place_and_series(like) if like else (None, "")
    if place is not None and place.is_file() and not files.holds_dicom(place):
        return files.read_grid(like), "", None, {}
    if place is None:
        series = dicom.series_of_label(path, source.fix_series)
    else:
        series = dicom.choose(place, uid, source.fix_series)
    named = dicom.references(path)
    grid, ordered = dicom.layout(series)
    meta = {"patient": series.patient_id, **dicom.fixed_in(series, ordered)}
    found = (named.note_about_frame(series), named.note_about_images(series))
    notes = [note for note in found if note]
    places = dicom.Places.of(grid, ordered)
    return grid, named.frame_for(series), places, meta | {"notes": notes}


def _drawn(source: Source) -> Volume:
    """The outlines of one picture on the grid of that picture, ``source.like``, if it is known."""
    grid = files.read_grid(source.like) if source.like else None
    size = None if grid is None else grid.shape[:2]
    numbering: run_lengths.Numbering = "rows" if source.axes == "rows" else "columns"
    volume = outlines.read(source.path, source.item, size, numbering)
    return volume if grid is None else replace(volume, grid=grid)


def names_in(path: str | Path) -> dict[int, str]:
    """Value -> name that a label file states in its header (NIfTI and PNG as this package writes
    them, NRRD and MetaImage with one layer of segments, DICOM segmentations and structure sets); {}
    if it states none or is no such file.

    Raises:
        InputError: it is damaged.
    """
    if not archive.is_file(Path(path)):
        return {}
    source = Source(str(path))
    if files.is_for_child(source):
        facts, _ = files.in_child("label_files:sent_names", source)
        return {int(value): name for value, name in facts.items()}
    if labelled := dicom.kind_of(path):
        if labelled == "RTSTRUCT":
            return dict(enumerate(dicom.read_roi_names(path), start=1))
        return seg.names_in(path)
    if not Path(path).is_file():  # a member of an archive
        return {}
    kind = files.detect(path)
    if kind == "PNG":
        return raster.read_names(path, kind)
    if kind in files.VOLUMES:
        segments = segments_of(files.VOLUMES[kind].read_segments(path))
        one_layer = len({segment.layer for segment in segments}) == 1
        return {segment.value: segment.name for segment in segments} if one_layer else {}
    if kind in arrays.KINDS:
        return arrays.read_names(path, kind)
    return nifti.read_names(path) if kind in nifti.KINDS else {}


def sent_labels(
    source: dict[str, Any],
    limit: int | None,
    by_index: bool,
    grid: dict[str, Any] | None,
    threshold: float | None,
    only: list[str] | None,
    rule: Rule,
) -> apart.Found:
    """``read_label_file`` for ``apart.call``."""
    options: dict[str, Any] = {"by_index": by_index, "threshold": threshold, "only": only}
    options["rule"] = rule
    options["grid"] = None if grid is None else Grid.from_json(grid)
    with reading_at_most(limit):
        return transfer.from_volume(read_label_file(Source.from_json(source), **options))


def sent_names(source: dict[str, Any], limit: int | None) -> apart.Found:
    """``names_in`` for ``apart.call``."""
    with reading_at_most(limit):
        return {str(value): name for value, name in names_in(source["path"]).items()}, ()


def overlap_in(path: Path) -> bool:
    """Whether segments of a DICOM segmentation overlap; False for any other file."""
    return dicom_labels_in(path) is not None and read_label_file(path).array.ndim == 4


def segments_of(fields: Mapping[str, str]) -> list[Segment]:
    """The segments that the header of a .seg.nrrd file states, in its order; [] if none."""
    table: dict[int, dict[str, str]] = {}
    for key, value in fields.items():
        if match := _KEY.match(key):
            table.setdefault(int(match[1]), {})[match[2]] = str(value)
    named = [
        fields
        for _, fields in sorted(table.items())
        if "Name" in fields and fields.get("LabelValue", "1").isdigit()
    ]
    # Slicer 4.10 and before wrote one layer for each segment, and neither layer nor value.
    is_early = len(named) > 1 and not any({"LabelValue", "Layer"} & set(one) for one in named)
    return [
        Segment(
            fields["Name"],
            int(fields.get("LabelValue", 1)),
            int(fields.get("Layer", n if is_early else 0)),
        )
        for n, fields in enumerate(named)
    ]


def is_coloured(volume: Volume) -> bool:
    """Whether the channels are red, green and blue."""
    return tuple(volume.meta.get("channels", ())[:3]) == COLOURS


def without_alpha(volume: Volume) -> Volume:
    """The picture without its channel of transparency, which is no intensity; if it had one,
    ``meta["alpha"]`` is "dropped".
    """
    names = list(volume.meta.get("channels", []))
    if not names or names[-1] != ALPHA or len(names) != volume.channels:
        return volume
    array = volume.array[:-1] if len(names) > 2 else volume.array[0]
    meta = {k: v for k, v in volume.meta.items() if k != "channels"}
    meta |= {"alpha": "dropped"} | ({"channels": names[:-1]} if len(names) > 2 else {})
    return replace(volume.with_array(array), meta=meta)


def _opaque(volume: Volume) -> Volume:
    """A mask without its channel of transparency: nothing is drawn where it is transparent, so
    these pixels are background.
    """
    plain = without_alpha(volume)
    if plain is volume:
        return volume
    return plain.with_array(
        np.where(volume.array[-1] > 0, plain.array, 0).astype(plain.array.dtype)
    )


def _in_pure_colours(volume: Volume, path: str) -> Volume:
    """A mask in pure colours (red, green ...) that was saved as JPEG: each pixel gets the
    nearest of its pure colours. Any other volume as it is.
    """
    if not path.lower().endswith(LOSSY) or not is_coloured(volume) or volume.array.ndim != 4:
        return volume
    array = volume.array[: len(COLOURS)]
    near = np.all((array <= NEAR) | (array >= 255 - NEAR), axis=0)
    lit = np.any(array > NEAR, axis=0)
    is_grey = np.ptp(array, axis=0).max(initial=0) <= NEAR
    if is_grey or not lit.any() or near[lit].mean() < PURE_SHARE:
        return volume
    corners = (array > 127).reshape(len(COLOURS), -1)
    codes = np.array([4, 2, 1]) @ corners
    shares = np.bincount(codes[near.ravel()], minlength=8) / codes.size
    kept = np.array([0, *(n for n in range(1, 8) if shares[n] >= COLOUR_SHARE)])
    colours = 255 * (kept[:, None] >> np.array([2, 1, 0]) & 1)
    flat = array.reshape(len(COLOURS), -1).astype(np.int32)
    distances = [((flat - colour[:, None]) ** 2).sum(axis=0) for colour in colours]
    pure = colours[np.argmin(distances, axis=0)].T.reshape(array.shape).astype(array.dtype)
    return replace(volume.with_array(pure), meta=volume.meta | {"made_pure": True})


def _one_map(volume: Volume, segments: list[Segment]) -> Volume:
    """The label map of the segments, with their names; values are kept if there is one layer. Of
    segments that overlap, one channel (I, J, K) uint8 each.
    """
    if volume.array.ndim == 3:
        names = {segment.value: segment.name for segment in segments}
        if len(names) < len(segments):
            raise LabelError("two segments have the same value", path=volume.source or None)
        return replace(volume, meta=volume.meta | {"names": names})
    out = np.zeros(volume.grid.shape, np.uint16)
    masks, overlap = [], False
    for number, segment in enumerate(segments, start=1):
        if segment.layer >= volume.channels:
            raise LabelError(
                f"segment {segment.name} is in layer {segment.layer}, but the file has "
                f"{volume.channels}",
                path=volume.source or None,
            )
        inside = volume.array[segment.layer] == segment.value
        overlap |= bool(out[inside].any())
        out[inside] = number
        masks.append(inside)
    names = {number: segment.name for number, segment in enumerate(segments, start=1)}
    array = np.stack(masks).astype(np.uint8) if overlap else out
    return replace(volume.with_array(array), meta=volume.meta | {"names": names})

"""Read a case: its channels as one volume, its labels as values of the cohort's structures.

Image arrays have the shape (C, I, J, K), label arrays (I, J, K). If the ground truth has one mask
per structure, masks may overlap: the later structure (the higher value in the mapping) then wins,
unless the structures of the cohort may overlap; label arrays then hold codes (``LabelSet``).
Every error names its case. This module writes no file and checks nothing beyond the geometry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DelineateError, GeometryError, InputError, LabelError
from ..core.grid import Grid
from ..core.labels import IGNORED, LabelSet, as_whole_numbers, marked, value_counts
from ..core.manifest import Case, Manifest, Source
from ..core.volume import Volume, background_of, stack_channels, without_padding
from ..formats import files
from ..formats.label_files import read_label_file, without_alpha
from ..formats.raster import COLOURS

# Share of the first channel's grid that another channel must cover to be resampled to it.
LEAST_COVERED = 0.5


def read_image(case: Case, manifest: Manifest) -> Volume:
    """The case's channels as one volume (C, I, J, K) with ``C = len(manifest.channels)``.

    Raises:
        InputError: a file cannot be read, or the number of channels differs from the cohort's.
        GeometryError: the channels are not on the same grid, and cannot be resampled to that of the
            first (see ``_on_grid_of_first``).
    """
    with _naming(case):
        volumes = [without_padding(without_alpha(files.read(source))) for source in case.images]
        # If each channel has its own file, a grey image stored as RGB counts as one channel.
        if len(manifest.channels) == len(volumes):
            volumes = [_one_channel(v) for v in volumes]
        elif tuple(manifest.channels) == COLOURS and [v.channels for v in volumes] == [1]:
            # A grey picture in a cohort of coloured ones.
            volumes = [volumes[0].with_array(np.repeat(volumes[0].channels_array, 3, axis=0))]
        found = sum(v.channels for v in volumes)
        if found != len(manifest.channels):
            raise InputError(
                f"found {found} channel(s), expected {len(manifest.channels)} "
                f"({', '.join(manifest.channels)})",
                path=case.images[0].path,
            )
        # A single file that holds all channels is one volume, so it has one name here.
        names = list(manifest.channels) if len(volumes) > 1 else [manifest.channels[0]]
        # All channels must be on one grid; the result always has a channel axis.
        stacked = _with_notes(stack_channels(_on_grid_of_first(volumes), names), volumes, names)
        notes = _notes(volumes, names)
        meta = stacked.meta | ({"notes": notes} if notes else {})
        stacked = replace(stacked, array=stacked.channels_array, meta=meta)
        return _with_place_of_label(case, stacked)


def _notes(volumes: Sequence[Volume], names: Sequence[str]) -> list[str]:
    """What the readers of the channels noted; with the channel's name if there are several."""
    return [
        f"{name}: {note}" if len(volumes) > 1 else note
        for name, volume in zip(names, volumes, strict=True)
        for note in volume.meta.get("notes", ())
    ]


def _with_notes(stacked: Volume, volumes: Sequence[Volume], names: Sequence[str]) -> Volume:
    """The channels with what the reader noted about each after the first, under its name."""
    more = [
        f"{name}: {note}"
        for name, volume in list(zip(names, volumes, strict=True))[1:]
        for note in volume.meta.get("notes", ())
    ]
    if not more:
        return stacked
    return replace(stacked, meta=stacked.meta | {"notes": [*stacked.meta.get("notes", ()), *more]})


def _on_grid_of_first(volumes: Sequence[Volume]) -> list[Volume]:
    """The volumes, those with another spacing or size resampled linearly to the grid of the first,
    such as PET to the grid of its CT; ``meta["resampled"]`` of the first then counts them.

    A volume stays as it is if its shape is that of the first (then the header of one of them is
    probably wrong), if one of the positions is not known, or if it covers less than
    ``LEAST_COVERED`` of the first.
    """
    first = volumes[0]
    found = [first]
    for one in volumes[1:]:
        known = all(v.meta.get("place_known", True) for v in (first, one))
        if one.grid.shape == first.grid.shape or one.channels > 1 or not known:
            found.append(one)
        else:
            found.append(_resampled(one, first.grid) or one)
    count = sum(after is not before for after, before in zip(found, volumes, strict=True))
    return [replace(first, meta=first.meta | {"resampled": count}), *found[1:]] if count else found


def _resampled(volume: Volume, grid: Grid) -> Volume | None:
    """The volume on ``grid`` by linear interpolation, with its background outside; None if it
    covers less than ``LEAST_COVERED`` of the grid.
    """
    from scipy import ndimage

    # A few voxels of the grid, evenly spaced, are enough for a share.
    points = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 9) for n in grid.shape)), -1)
    index = volume.grid.to_index(grid.to_mm(points.reshape(-1, 3)))
    inside = ((index > -0.5) & (index < np.array(volume.grid.shape) - 0.5)).all(axis=1)
    if inside.mean() < LEAST_COVERED:
        return None
    # The matrix leads from voxels of the grid to those of the volume.
    to_own = np.linalg.inv(volume.grid.affine) @ grid.affine
    own = np.asarray(volume.channels_array[0], dtype=np.float32)
    array = ndimage.affine_transform(
        own,
        to_own[:3, :3],
        to_own[:3, 3],
        grid.shape,
        order=1,
        mode="constant",
        cval=background_of(own),
    )
    return replace(volume, array=array, grid=grid)


def _with_place_of_label(case: Case, image: Volume) -> Volume:
    """An image whose file states no position gets that of its label, if shape and spacing agree;
    ``meta["place_from"]`` then names the label.
    """
    if image.meta.get("place_known", True) or not image.meta.get("spacing_known", True):
        return image
    for source in case.label:
        if source.like:  # it has the geometry of another image
            continue
        try:
            if not Path(source.path).is_file() or files.detect(source.path) in files.RASTER:
                continue  # no position either
            label = read_label_file(source)
        except DelineateError:  # reported where the label is read
            continue
        same = label.grid.shape == image.grid.shape and np.allclose(
            label.spacing_mm, image.spacing_mm, atol=image.grid.tolerance_mm / max(image.grid.shape)
        )
        if same and label.meta.get("place_known", True):
            meta = image.meta | {"place_known": True, "place_from": source.path}
            return replace(image, grid=label.grid, meta=meta)
    return image


def read_label(case: Case, manifest: Manifest, grid: Grid | None = None) -> Volume:
    """The case's ground truth (I, J, K) with unit "label", after the cohort's mapping: with dtype
    ``manifest.labels.dtype``, or uint16 with ``IGNORED`` if the cohort ignores some values.

    Args:
        case: has at least one label source.
        manifest: gives the structures and the mapping.
        grid: the image's grid. The voxels of the label must coincide with its voxels within
            ``Grid.tolerance_mm``; the axes may have another order, and the label may be a part (see
            ``Volume.on_grid``). The result has exactly this grid.

    Raises:
        InputError: the case has no ground truth, or a file cannot be read.
        LabelError: undeclared label values.
        GeometryError: the labels are not on ``grid`` (with the distance or the shapes).
    """
    with _naming(case):
        raw = read_raw_label(case, manifest)
        volume = map_label(raw, manifest)
        if grid is None:
            return volume
        # Small differences come from rounding in the file headers; the image is the reference.
        placed = volume.on_grid(grid)
        if placed is None:
            raise GeometryError(
                f"label and image geometry differ: {difference(volume.grid, grid)}",
                path=case.label[0].path,
            )
        return placed


def read_raw_label(case: Case, manifest: Manifest) -> list[tuple[Source, Volume]]:
    """The label sources as stored on disk.

    A grey image that is stored as RGB is reduced to one channel, unless the mapping uses colours.
    """
    if not case.label:
        raise InputError("has no ground truth").of_case(case.id)
    with _naming(case):
        mapping = manifest.mapping
        by_index = not mapping.rgb
        # Structures that become background need not be read.
        names = [name for name, _ in mapping.segments] if mapping.rest == "background" else []
        volumes = [
            read_label_file(source, by_index=by_index, only=names or None) for source in case.label
        ]
        return [
            (s, v if manifest.mapping.rgb or not is_picture(v) else _one_channel(v))
            for s, v in zip(case.label, volumes, strict=True)
        ]


def map_label(raw: list[tuple[Source, Volume]], manifest: Manifest) -> Volume:
    """Convert the values on disk to the cohort's label values, (I, J, K).

    If masks of structures that exclude each other overlap, the later structure wins, and
    ``meta["covered"]`` gives (earlier structure, later structure) -> voxels.
    """
    source, first = raw[0]
    covered: dict[tuple[str, str], int] = {}
    try:
        if manifest.mapping.files:
            array, covered = _merged(raw, manifest)
        elif len(raw) > 1:
            array, covered = _united(raw, manifest)
        else:
            array = manifest.mapping.apply(first.array, manifest.labels, first.meta.get("names"))
    except LabelError as error:
        # Name the file if the error does not yet.
        raise LabelError(error.message, case=error.case, path=error.path or source.path) from error
    meta = {**first.meta, "covered": covered} if covered else first.meta
    return Volume(array, first.grid, "label", source.path, meta)


def _merged(
    raw: list[tuple[Source, Volume]], manifest: Manifest
) -> tuple[NDArray[Any], dict[tuple[str, str], int]]:
    """Merge the masks into one label array (I, J, K); several of one structure are united. Also
    (earlier structure, later structure) -> voxels that were of both and became the later one's.
    """
    first = raw[0][1]
    masks: dict[str, list[tuple[Source, Volume]]] = {}
    for source, volume in raw:
        masks.setdefault(source.structure or files.stem(source.path), []).append((source, volume))
    out = np.zeros(first.grid.shape, dtype=manifest.labels.dtype)
    ignored = np.zeros(first.grid.shape, dtype=bool)
    covered: dict[tuple[str, str], int] = {}
    # A mask that the mapping does not name is an error unless other masks count as background.
    unknown = sorted(set(masks) - {name for name, _ in manifest.mapping.files})
    if unknown and manifest.mapping.rest == "refuse":
        raise LabelError(
            f"undeclared masks {', '.join(unknown)}; declared are "
            f"{', '.join(n for n, _ in manifest.mapping.files)}"
        )
    # Masks are added in the order of the mapping, so the later structure may win in an overlap.
    for name, value in manifest.mapping.files:
        for source, volume in masks.get(name, []):
            placed = _placed(source, volume, first.grid)
            inside = as_whole_numbers(placed.array, source.path) > 0
            if manifest.mapping.ignore:
                here = manifest.mapping.ignored_in(placed.array)
                inside, ignored = inside & ~here, ignored | here
            if not manifest.labels.overlapping:
                _count_covered(covered, out[inside], value, manifest.labels)
            manifest.labels.add(out, inside, value)
    return marked(out, ignored) if manifest.mapping.ignore else out, covered


def _united(
    raw: list[tuple[Source, Volume]], manifest: Manifest
) -> tuple[NDArray[Any], dict[tuple[str, str], int]]:
    """The structures of several files as one label array (I, J, K), and what ``_merged`` counts."""
    first, labels = raw[0][1], manifest.labels
    out = np.zeros(first.grid.shape, dtype=labels.dtype)
    ignored = np.zeros(first.grid.shape, dtype=bool)
    covered: dict[tuple[str, str], int] = {}
    for source, volume in raw:
        placed = _placed(source, volume, first.grid)
        array = manifest.mapping.apply(placed.array, labels, volume.meta.get("names"))
        if manifest.mapping.ignore:
            ignored |= array == IGNORED
            array = np.where(array == IGNORED, 0, array)
        for label in labels:
            inside = labels.inside(array, label)
            if not labels.overlapping:
                _count_covered(covered, out[inside], label.value, labels)
            labels.add(out, inside, label.value)
    return marked(out, ignored) if manifest.mapping.ignore else out, covered


def _placed(source: Source, volume: Volume, grid: Grid) -> Volume:
    """A mask on the grid of the first one.

    Raises:
        GeometryError: it is on another grid.
    """
    placed = volume.on_grid(grid)
    if placed is None:
        raise GeometryError(
            f"the masks are not on the same grid: {difference(volume.grid, grid)}",
            path=source.path,
        )
    return placed


def _count_covered(
    covered: dict[tuple[str, str], int], before: NDArray[Any], value: int, labels: LabelSet
) -> None:
    """Add the voxels ``before`` that get another structure's value."""
    names = dict(zip(labels.values, labels.names, strict=True))
    for old, count in value_counts(before).items():
        if old not in (0, value):
            pair = names[old], names[value]
            covered[pair] = covered.get(pair, 0) + count


def difference(one: Grid, other: Grid) -> str:
    """Describe the difference between two grids: the shapes, or the largest distance in mm."""
    if one.shape != other.shape:
        return f"shape {one.shape} instead of {other.shape}"
    return f"corners differ by up to {one.distance_mm(other):.2f} mm"


def is_grey(array: NDArray[Any]) -> bool:
    """Whether red, green and blue of a (3 or 4, I, J, K) array are equal: a grey image stored as
    RGB or RGBA.
    """
    # A fourth channel is transparency and is not compared.
    return (
        array.ndim == 4
        and len(array) in (3, 4)
        and bool((array[0] == array[1]).all() and (array[0] == array[2]).all())
    )


def is_picture(volume: Volume) -> bool:
    """Whether the channels are those of a picture (grey or colours, with or without alpha), or
    there is only one.
    """
    return volume.channels == 1 or bool(volume.meta.get("channels"))


def _one_channel(volume: Volume) -> Volume:
    """The volume reduced to one channel if it has one channel or equal colours."""
    return (
        volume.with_array(volume.array[0])
        if volume.array.ndim == 4 and (len(volume.array) == 1 or is_grey(volume.array))
        else volume
    )


@contextmanager
def _naming(case: Case) -> Iterator[None]:
    """Add the case to every error raised inside."""
    try:
        yield
    except DelineateError as error:
        # The same error is raised again, now with its case.
        raise error.of_case(case.id)  # noqa: B904

"""Reading a case: its channels as one volume, its truth as values of the cohort's structures.

Arrays are (C, I, J, K) and (I, J, K). Where the truth is one mask a structure, the later structure
(the higher value in the mapping) wins where masks overlap. Every error names its case. It writes
nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DelineateError, GeometryError, InputError, LabelError
from ..core.grid import Grid
from ..core.labels import as_whole_numbers
from ..core.manifest import Case, Manifest, Source
from ..core.volume import Volume, stack_channels
from ..formats import files


def read_image(case: Case, manifest: Manifest) -> Volume:
    """The case's channels as one volume (C, I, J, K), C as many as ``manifest.channels``.

    Raises:
        InputError: a file that cannot be read, or another number of channels than the cohort has.
        GeometryError: channels that do not stand on one grid.
    """
    with _of(case):
        volumes = [files.read(source) for source in case.images]
        if len(manifest.channels) == len(volumes):
            volumes = [_one_channel(v) for v in volumes]
        found = sum(v.channels for v in volumes)
        if found != len(manifest.channels):
            raise InputError(
                f"found {found} channel(s), expected {len(manifest.channels)} "
                f"({', '.join(manifest.channels)})",
                path=case.images[0].path,
            )
        names = list(manifest.channels) if len(volumes) > 1 else [manifest.channels[0]]
        stacked = stack_channels(volumes, names)
        return stacked.with_array(stacked.channels_array)


def read_label(case: Case, manifest: Manifest, grid: Grid | None = None) -> Volume:
    """The case's truth (I, J, K) of ``manifest.labels.dtype``, unit "label", with the cohort's
    mapping applied.

    Args:
        case: has at least one label source.
        manifest: its structures and mapping.
        grid: the image's; the truth must be on it within ``GRID_TOLERANCE_MM``, and then gets
            exactly this grid.

    Raises:
        InputError: the case has no truth, or a file that cannot be read.
        LabelError: values that were not declared.
        GeometryError: the truth stands elsewhere than ``grid`` (with the distance or the shapes).
    """
    with _of(case):
        raw = read_raw_label(case, manifest)
        volume = map_label(raw, manifest)
        if grid is None:
            return volume
        if not volume.grid.matches(grid):
            raise GeometryError(
                f"label and image geometry differ: {difference(volume.grid, grid)}",
                path=case.label[0].path,
            )
        return replace(volume, grid=grid)


def read_raw_label(case: Case, manifest: Manifest) -> list[tuple[Source, Volume]]:
    """The label sources as they are on disk; a picture that is grey but stored as colours has one
    channel, unless colours have meaning.
    """
    if not case.label:
        raise InputError("has no truth").of_case(case.id)
    with _of(case):
        volumes = [files.read(source) for source in case.label]
        return [
            (s, v if manifest.mapping.rgb else _one_channel(v))
            for s, v in zip(case.label, volumes, strict=True)
        ]


def map_label(raw: list[tuple[Source, Volume]], manifest: Manifest) -> Volume:
    """The values on disk as values of the cohort's structures, (I, J, K)."""
    source, first = raw[0]
    try:
        if manifest.mapping.files:
            array = _merged(raw, manifest)
        else:
            array = manifest.mapping.apply(first.array, manifest.labels)
    except LabelError as error:
        raise LabelError(error.message, case=error.case, path=error.path or source.path) from error
    return Volume(array, first.grid, "label", source.path, first.meta)


def _merged(raw: list[tuple[Source, Volume]], manifest: Manifest) -> NDArray[Any]:
    """One mask a structure into one array; in the order of the mapping, so that the later wins."""
    first = raw[0][1]
    masks = {files.stem(source.path): (source, volume) for source, volume in raw}
    out = np.zeros(first.grid.shape, dtype=manifest.labels.dtype)
    unknown = sorted(set(masks) - {name for name, _ in manifest.mapping.files})
    if unknown and manifest.mapping.rest == "refuse":
        raise LabelError(
            f"masks {', '.join(unknown)} are not declared; declared are "
            f"{', '.join(n for n, _ in manifest.mapping.files)}"
        )
    for name, value in manifest.mapping.files:
        if name in masks:
            source, volume = masks[name]
            if not volume.grid.matches(first.grid):
                raise GeometryError(
                    f"masks do not stand on one grid: {difference(volume.grid, first.grid)}",
                    path=source.path,
                )
            out[as_whole_numbers(volume.array, source.path) > 0] = value
    return out


def difference(one: Grid, other: Grid) -> str:
    """How two grids differ, in words."""
    if one.shape != other.shape:
        return f"shape {one.shape} against {other.shape}"
    return f"it stands up to {one.distance_mm(other):.2f} mm away"


def is_grey(array: NDArray[Any]) -> bool:
    """Whether (3 or 4, I, J, K) are equal red, green and blue: a grey picture stored as colours."""
    return (
        array.ndim == 4
        and len(array) in (3, 4)
        and bool((array[0] == array[1]).all() and (array[0] == array[2]).all())
    )


def _one_channel(volume: Volume) -> Volume:
    """The volume with a single channel where all it has are equal colours."""
    return (
        volume.with_array(volume.array[0])
        if volume.array.ndim == 4 and (len(volume.array) == 1 or is_grey(volume.array))
        else volume
    )


@contextmanager
def _of(case: Case) -> Iterator[None]:
    """Errors inside name the case."""
    try:
        yield
    except DelineateError as error:
        # The same error, now with its case.
        raise error.of_case(case.id)  # noqa: B904

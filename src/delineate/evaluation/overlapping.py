"""Structures that overlap in an evaluation: masks in each of their forms become codes, and each
structure is counted and measured by itself.

Forms: a folder with one file for each structure; layers of one ``.seg.nrrd``; one channel for each
structure, in their order; a label map with regions, whose structures state the values that belong
to them; and the truth of a cohort. Files state their structures by name. There is no confusion
matrix, because a voxel may have several structures on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from ..core.grid import Grid
from ..core.labels import IGNORED, LabelSet, as_whole_numbers, marked
from ..core.manifest import Manifest, Source
from ..core.terms import structure_of
from ..core.volume import Volume
from ..formats.files import stem
from ..formats.label_files import dicom_labels_in, read_label_file
from ..metrics import overlap
from ..metrics.by_slice import SliceCounts, count_slices
from ..metrics.overlap import Counts, Floats
from ..metrics.selection import MetricSelection


def may_overlap(labels: LabelSet | None) -> bool:
    """Whether a mask of these structures must be read as codes: they overlap, or are regions of a
    label map.
    """
    return labels is not None and (labels.overlapping or any(label.parts for label in labels))


def prediction_codes(
    mask: Source | Volume,
    structures: LabelSet,
    cohort: Manifest | None = None,
    grid: Grid | None = None,
) -> Volume:
    """The codes (I, J, K) of a mask for ``structures``, which overlap.

    Args:
        mask: in one of the forms above.
        cohort: of the truth; its mapping also applies to a label map.
        grid: see ``read_label_file``.

    Raises:
        LabelError: the mask does not say which structure is where.
        GeometryError: the files of a folder have different grids.
        InputError, FormatError: a file cannot be read.
    """
    if isinstance(mask, Source) and not mask.like and _holds_masks(Path(mask.path)):
        return _of_folder(Path(mask.path), structures)
    volume = mask if isinstance(mask, Volume) else read_label_file(mask, grid=grid)
    return volume.with_array(_of_volume(volume, structures, cohort), "label")


def _holds_masks(path: Path) -> bool:
    """Whether this is a folder of masks, and not of one DICOM object."""
    return path.is_dir() and dicom_labels_in(path) is None


def _of_folder(folder: Path, structures: LabelSet) -> Volume:
    """One mask for each structure; a structure without a file is absent."""
    paths = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    codes: Volume | None = None
    for path in paths:
        volume = read_label_file(path)
        stated = list(volume.meta.get("names", {}).values())
        name = stated[0] if len(stated) == 1 else stem(path)
        value = _value_of(name, structures, path)
        if codes is None:
            codes = volume.with_array(np.zeros(volume.grid.shape, structures.dtype), "label")
        placed = volume.on_grid(codes.grid)
        if placed is None:
            raise GeometryError("the masks of one case are not on the same grid", path=path)
        structures.add(codes.array, as_whole_numbers(placed.array, str(path)) > 0, value)
    if codes is None:
        raise LabelError("holds no mask of a structure", path=folder)
    return codes


def _of_volume(volume: Volume, structures: LabelSet, cohort: Manifest | None) -> NDArray[Any]:
    array, path = as_whole_numbers(volume.array, volume.source or None), volume.source or None
    names: dict[int, str] = volume.meta.get("names", {})
    codes = np.zeros(volume.grid.shape, structures.dtype)
    if array.ndim == 4 and not names and len(array) != len(structures):
        raise LabelError(
            f"found {len(array)} channels for {len(structures)} structures that overlap "
            f"({', '.join(structures.names)})",
            path=path,
        )
    if array.ndim == 4:
        for n, mask in enumerate(array):
            value = _value_of(names[n + 1], structures, path) if names else structures.values[n]
            structures.add(codes, mask > 0, value)
        return codes
    if any(label.parts for label in structures):
        for label in structures:
            structures.add(codes, np.isin(array, label.parts or (label.value,)), label.value)
        return codes
    if names:
        for v, name in names.items():
            structures.add(codes, array == v, _value_of(name, structures, path))
        return codes
    if cohort is not None and cohort.mapping.values:
        return cohort.mapping.apply(array, structures)
    raise LabelError(
        f"is one label map without names, but {', '.join(structures.names)} overlap; give one file "
        "for each structure, or layers of a .seg.nrrd file",
        path=path,
    )


def _value_of(name: str, structures: LabelSet, path: str | Path | None) -> int:
    """The value of the structure with this name, or of the one that it means.

    Raises:
        LabelError: there is none.
    """
    plain = " ".join(name.casefold().replace("_", " ").split())
    for label in structures:
        if " ".join(label.name.casefold().replace("_", " ").split()) == plain:
            return label.value
    for label in structures:
        if structure_of(label.name) == structure_of(name):
            return label.value
    raise LabelError(
        f"no structure is called {name!r}; known are {', '.join(structures.names)}", path=path
    )


def truth_codes(truth: Volume, own: LabelSet, structures: LabelSet) -> Volume:
    """The codes of a cohort's label map, with structures ``own``, in the order of ``structures``;
    ignored voxels stay ``IGNORED``.
    """
    codes = np.zeros(truth.grid.shape, structures.dtype)
    for value in structures.values:
        label = next((b for b in own if b.value == value), None)
        if label is not None:
            structures.add(codes, own.inside(truth.array, label), value)
    ignored = truth.array == IGNORED
    return truth.with_array(marked(codes, ignored) if ignored.any() else codes, "label")


# ---- counting ----


def _each(
    p: NDArray[Any], t: NDArray[Any], structures: LabelSet
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The two masks of each structure, with value 1."""
    for label in structures:
        one, other = (structures.inside(side, label).astype(np.uint8) for side in (p, t))
        yield one, other


def count(p: NDArray[Any], t: NDArray[Any], structures: LabelSet, voxel_ml: float) -> Counts:
    """``overlap.count`` of each structure by itself, from two arrays of codes."""
    found = [overlap.count(one, other, [1], voxel_ml) for one, other in _each(p, t, structures)]

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, name) for one in found])

    tp, fp, fn = (joined(name) for name in ("tp", "fp", "fn"))
    volumes = joined("predicted_ml"), joined("truth_ml")
    return Counts(tuple(structures.values), tp, fp, fn, *volumes, float(t.size))


def slices(p: NDArray[Any], t: NDArray[Any], structures: LabelSet, axis: int) -> SliceCounts:
    """``count_slices`` of each structure by itself, ordered by slice."""
    found = [count_slices(one, other, axis) for one, other in _each(p, t, structures)]
    value = np.repeat(structures.values, [len(one.index) for one in found]).astype(np.int64)
    columns = [
        np.concatenate([getattr(one, n) for one in found]) for n in ("index", "tp", "fp", "fn")
    ]
    order = np.argsort(columns[0], kind="stable")
    index, tp, fp, fn = (column[order] for column in columns)
    return SliceCounts(p.shape[axis], index, value[order], tp, fp, fn)


def measure(
    chosen: MetricSelection,
    p: NDArray[Any],
    t: NDArray[Any],
    structures: LabelSet,
    spacing_mm: tuple[float, float, float],
) -> dict[str, Floats]:
    """``MetricSelection.measure`` of each structure by itself."""
    found = [chosen.measure(one, other, [1], spacing_mm) for one, other in _each(p, t, structures)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

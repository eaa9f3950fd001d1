"""Writing the slices of one case, and reading them as a volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError, GeometryError, LabelError
from ...core.manifest import Case
from ...core.volume import Volume
from .. import arrays, files, raster
from ..disk import told
from ..label_files import read_label_file
from .pixels import MaskCodes, Scale
from .record import (
    MASKS_FOLDER,
    VIEWS,
    ExportedCase,
    SliceSet,
    exported,
    seen,
    views_of,
)


def write_case(
    case: Case,
    image: Volume,
    label: Volume | None,
    head: SliceSet,
    asked: tuple[str, ...],
    out: Path,
) -> ExportedCase:
    """Write every slice of a case in the views that are ``asked`` for.

    Args:
        image: (C, I, J, K) with the channels of ``head``.
        label: values of its structures on the same grid; None writes no masks.

    Raises:
        OutputError: a file cannot be written.
    """
    views = views_of(image.grid, asked)
    scales, errors, clipped = [], [], []
    for channel, folder in zip(image.channels_array, head.channels.values(), strict=True):
        scale = Scale.of(channel, head.bits, head.window)
        pixels = scale.to_pixels(channel)
        error, outside = scale.loss(channel, pixels)
        scales.append(scale)
        errors.append(error)
        clipped.append(outside)
        _write(pixels, image, head, case.id, views, folder, out)
    if label is not None:
        pixels = head.codes.to_pixels(label.array)
        _write(pixels, image, head, case.id, views, MASKS_FOLDER, out)
    return exported(
        case,
        grid=image.grid,
        unit=image.unit,
        scales=tuple(scales),
        views=views,
        has_mask=label is not None,
        max_error=max(errors),
        clipped=max(clipped),
    )


def _write(
    pixels: NDArray[Any],
    image: Volume,
    head: SliceSet,
    case: str,
    views: Sequence[str],
    folder: str,
    out: Path,
) -> None:
    """Write pixels (I, J, K) or (3, I, J, K) in every view."""
    for view in views:
        cut = seen(image.grid, view)[1].apply(pixels)
        for k in range(cut.shape[-1]):
            _save(cut[..., k], out / view / folder / head.name(case, view, k), head.form)


def _save(pixels: NDArray[Any], path: Path, form: str) -> None:
    """Write one slice (columns, rows) or (3, columns, rows)."""
    if form == "npy":
        arrays.save(np.ascontiguousarray(pixels.T), path)  # (rows, columns) or (..., 3)
    else:
        raster.save(pixels, path)


def read_images(case: ExportedCase, head: SliceSet, view: str, folder: Path) -> Volume:
    """The volume of a case from its slices in ``view``: (C, I, J, K), or (I, J, K) of one channel.

    Raises:
        FormatError: a slice is missing or cannot be read.
        GeometryError: a slice has another size.
    """
    names = [head.name(case.id, view, k) for k in range(seen(case.grid, view)[0].shape[2])]
    channels = []
    for scale, inner in zip(case.scales, head.channels.values(), strict=True):
        paths = [folder / view / inner / name for name in names]
        channels.append(scale.to_values(_stacked(paths, case, view)))
    array = np.stack(channels) if len(channels) > 1 else channels[0]
    return Volume(array, case.grid, case.unit, str(folder))


def read_masks(
    case: ExportedCase, head: SliceSet, view: str, paths: Sequence[Path], codes: Sequence[MaskCodes]
) -> Volume:
    """The mask of a case from one file for each slice of ``view``, in their order.

    Args:
        codes: how the files may show the structures; all their pixels must be codes of one.

    Raises:
        LabelError: pixels that are no structures, or that have a meaning by several ``codes``.
            Others as ``read_images``.
    """
    pixels, found, refused = _stacked(paths, case, view), {}, []
    dtype = head.labels.dtype if head.codes.ignored is None else np.uint16
    for one in codes:
        try:
            found[one.kind] = one.to_values(pixels, dtype)
        except LabelError as error:
            refused.append(error)
    if not found:
        raise LabelError(refused[0].message, path=paths[0].parent)
    first, *others = found.values()
    if not all(np.array_equal(first, other) for other in others):
        raise LabelError(
            f"the pixel values can be those of {' and of '.join(found)} masks; state which with "
            "--values",
            path=paths[0].parent,
        )
    return Volume(first, case.grid, "label", str(paths[0].parent))


def _stacked(paths: Sequence[Path], case: ExportedCase, view: str) -> NDArray[Any]:
    """The slices as pixels on the grid of the case: (I, J, K) or (3, I, J, K)."""
    grid, axes = seen(case.grid, view)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FormatError(
            f"{len(missing)} of {len(paths)} {view} slices are missing", path=missing[0]
        )
    slices = [read_slice(path, view) for path in paths]
    for path, pixels in zip(paths, slices, strict=True):
        if pixels.shape[-2:] != grid.shape[:2]:
            raise GeometryError(
                f"has {_size(pixels.shape[-2:])} pixels (columns x rows), the slices of the scan "
                f"have {_size(grid.shape[:2])}; a mask must have the size of its scan",
                path=path,
            )
    # A black slice may be stored without colours.
    if any(pixels.ndim == 3 for pixels in slices):
        slices = [p if p.ndim == 3 else np.stack([p] * 3) for p in slices]
    return axes.inverse().apply(np.stack(slices, axis=-1))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def read_slice(path: Path, view: str) -> NDArray[Any]:
    """The pixels of one slice, (columns, rows) or (3, columns, rows); a palette by index.

    A mask that was predicted on an array has the axes of the array, rows first.

    Raises:
        FormatError: it cannot be read, or is no single slice.
    """
    with told(path):
        if files.detect(path) == "NumPy":
            return arrays.load(path, "NumPy", "").T
        volume = read_label_file(path)
        if volume.grid.shape[2] != 1:
            raise FormatError(f"has {volume.grid.shape[2]} slices, but one is needed", path=path)
        pixels = volume.channels_array[..., 0]
        if volume.grid.codes[:2] == VIEWS[view][1::-1]:
            pixels = pixels.swapaxes(-1, -2)
        return pixels[0] if len(pixels) == 1 else pixels


def source_of(case: ExportedCase, head: SliceSet, view: str, is_mask: bool) -> dict[str, Any]:
    """The spacing, and of arrays the axes, of a slice's file, as fields of a ``Source``."""
    columns, rows = VIEWS[view][0], VIEWS[view][1]
    spacing = seen(case.grid, view)[0].spacing_mm
    if head.form == "npy":
        colours = "C" if is_mask and head.codes.kind == "colour" else ""
        return {"spacing_mm": (spacing[1], spacing[0]), "axes": rows + columns + colours}
    return {"spacing_mm": spacing}

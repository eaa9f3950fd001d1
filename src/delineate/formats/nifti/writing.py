"""Volumes as NIfTI files, and as images of nibabel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.atomic import replacing
from ...core.errors import FormatError
from ...core.grid import Grid
from ...core.labels import LabelSet
from ...core.volume import Volume
from ..disk import labels_as_text, packing, smallest_labels
from ..raster import COLOURS
from . import header as own
from .reading import RGB_VECTOR, SUV, cube, nibabel

BLOCK_BYTES = 2**23  # of voxels, written at once


def write(
    volume: Volume, path: str | Path, labels: LabelSet | None = None, step: float = 1.0
) -> None:
    """Write NIfTI-1 (NIfTI-2 if an axis exceeds 32767 voxels), compressed if the name ends in .gz.

    sform and qform are both written with code 1; a sheared grid has only the sform. The dtype is
    kept, except that bool becomes uint8, float16 becomes float32, and labels get the smallest
    unsigned dtype. ``labels`` go into a comment extension as JSON, the unit "SUV" into intent_name,
    and that channels are colours into intent_code.

    Args:
        volume: (I, J, K) or (C, I, J, K).
        path: of the new file.
        labels: names and colours of the values.
        step: the value of one stored unit, written as the slope; readers multiply by it.
    """
    array, extensions = _stored(volume), _extensions(labels)
    fields = own.made(array.shape, array.dtype, volume.grid, step)
    if volume.unit == "SUV":
        fields["intent_name"] = SUV
    if _is_coloured(volume):
        fields["intent_code"] = RGB_VECTOR
    with (
        replacing(path) as temporary,
        packing(temporary, str(path).lower().endswith(".gz")) as file,
    ):
        file.write(own.packed(fields, extensions))
        # The first axis is the fastest, so that planes of the last one follow each other.
        planes = max(1, BLOCK_BYTES // max(1, array[..., 0].nbytes))
        for first in range(0, array.shape[-1], planes):
            file.write(array[..., first : first + planes].tobytes("F"))


def _stored(volume: Volume) -> NDArray[Any]:
    """The voxels (I, J, K) or (I, J, K, C) as they are stored."""
    array = smallest_labels(volume) if volume.unit == "label" else volume.array
    stored = np.dtype({"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype))
    # NIfTI stores channels as the fourth axis.
    moved = np.moveaxis(array, 0, 3) if array.ndim == 4 else array
    return moved.astype(stored.newbyteorder("="), copy=False)


def _extensions(labels: LabelSet | None) -> list[own.Extension]:
    """NIfTI has no field for label names, so they go into an extension."""
    text = labels_as_text(labels).encode() if labels is not None and len(labels) else b""
    return [own.Extension(own.COMMENT, text)] if text else []


def _is_coloured(volume: Volume) -> bool:
    return tuple(volume.meta.get("channels", ())) == COLOURS and volume.unit != "label"


def to_image(volume: Volume, labels: LabelSet | None = None, step: float = 1.0) -> Any:
    """The volume as a nibabel image, as ``write`` stores it.

    Args:
        volume, labels, step: see ``write``.

    Returns:
        A ``Nifti1Image``, or a ``Nifti2Image`` if an axis exceeds 32767 voxels.
    """
    array, nib = _stored(volume), nibabel()
    maker, head = (
        (nib.Nifti1Image, nib.Nifti1Header)
        if max(array.shape) <= own.MOST_SIZE
        else (nib.Nifti2Image, nib.Nifti2Header)
    )
    # sform and qform get the same affine, so that readers that use either of them agree.
    header = head()
    header.set_data_dtype(array.dtype)
    image = maker(array, volume.grid.affine, header, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(step, 0)
    image.set_sform(volume.grid.affine, code=1)
    # A qform cannot hold shear and would contradict the sform, so it is not set.
    code = 0 if volume.grid.is_sheared else 1
    image.set_qform(volume.grid.affine, code=code, strip_shears=True)
    if volume.unit == "SUV":
        image.header["intent_name"] = SUV
    if _is_coloured(volume):
        image.header["intent_code"] = RGB_VECTOR
    for one in _extensions(labels):
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", one.content))
    return image


def from_image(image: Any) -> Volume:
    """The volume of a nibabel image; unit "a.u.".

    Args:
        image: any spatial image of nibabel, in memory or on disk; scaling is applied.

    Raises:
        FormatError: more than four axes, or values that are not real.
        GeometryError: an impossible affine.
    """
    array = cube(np.asanyarray(image.dataobj))
    source = str(image.get_filename() or "")
    # A fifth axis of vectors follows an empty time axis.
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim > 4 or array.dtype.kind not in "biuf":
        raise FormatError(
            f"{array.ndim} axes of {array.dtype}; allowed: three spatial axes of real numbers and "
            "one of channels",
            path=source or None,
        )
    grid = Grid(array.shape[:3], np.asarray(image.affine, np.float64), allow_shear=True)
    channels = np.moveaxis(array, 3, 0) if array.ndim == 4 else array
    meta = {"modality": "", "patient": "", "spacing_known": True}
    return Volume(channels, grid, source=source, meta=meta)

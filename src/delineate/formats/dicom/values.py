"""The voxels of a DICOM series, rescaled with the slope and intercept of each slice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import FormatError
from ...core.inputs import refuse_large
from ...core.volume import Volume
from ...extras import require_extra
from .. import apart
from ..disk import told
from .geometry import layout
from .headers import Plane, Series, open_dataset

# Plug-ins of pydicom in the order in which they are tried. Those of the core come first, so that
# the extra changes no pixel. None of them has a licence that binds users.
DECODERS = ("pydicom", "pillow", "pyjpegls", "gdcm", "pylibjpeg")


def read_series(series: Series) -> Volume:
    """Read the volume (I, J, K) = (column, row, slice).

    The dtype is int16 if the rescaled values are whole and fit (else uint16 or int32), or float32.
    The unit is "HU" for CT with a rescale, else "a.u."; ``meta`` has modality, patient, series,
    study and description.

    Raises:
        FormatError: an object that is not supported, or pixels that cannot be decoded.
        GeometryError: positions that do not form an evenly spaced stack.
    """
    with told(series.files[0].parent, "DICOM series"):
        grid, ordered = layout(series)
    # (slice, row, column) in memory, so that each file fills one contiguous block.
    dtype = np.dtype(_dtype(ordered))
    with told(series.files[0].parent):
        refuse_large(math.prod(grid.shape) * dtype.itemsize)
    array = np.empty((grid.shape[2], grid.shape[1], grid.shape[0]), dtype)
    for k, one in enumerate(ordered):
        array[k] = _pixels(one, array.dtype)
    volume = _narrowed(array).transpose(2, 1, 0)
    unit = "HU" if series.modality == "CT" and all(s.rescaled for s in ordered) else "a.u."
    meta = {
        "modality": series.modality,
        "patient": series.patient_id,
        "series": series.uid,
        "study": series.study,
        "description": series.description,
        "spacing_known": True,
        "place_known": True,
    }
    # The source is the folder of the series, or the folder above if it is spread over several.
    source = (
        series.files[0].parent
        if len({p.parent for p in series.files}) == 1
        else series.files[0].parents[1]
    )
    return Volume(volume, grid, unit, str(source), meta)


def _dtype(ordered: Sequence[Plane]) -> type[np.generic]:
    """Choose int16 or int32 if every rescaled value is whole and fits, else float32."""
    low = high = 0.0
    for one in ordered:
        if one.slope != round(one.slope) or one.intercept != round(one.intercept):
            return np.float32
        # The range follows from BitsStored, not from the pixels, so no file is decoded for it.
        ends = (
            (-(2 ** (one.bits - 1)), 2 ** (one.bits - 1) - 1)
            if one.signed
            else (0, 2**one.bits - 1)
        )
        low = min(low, *(e * one.slope + one.intercept for e in ends))
        high = max(high, *(e * one.slope + one.intercept for e in ends))
    if low >= -32768 and high <= 32767:
        return np.int16
    return np.int32 if low >= -(2**31) and high < 2**31 else np.float32


def _pixels(one: Plane, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decode and rescale one slice: (rows, columns)."""
    import pydicom

    with told(one.path, "DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = open_dataset(one.path)
        if "PixelData" not in dataset:
            raise FormatError("a DICOM image without pixel data")
        if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
            # The default transfer syntax if none is stated (PS3.5 10.1).
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pixels = (
            _in_child(one, dataset)
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated
            and dataset.file_meta.TransferSyntaxUID != pydicom.uid.RLELossless
            else _decoded(dataset)
        )
    if pixels.shape[-2:] != (one.rows, one.columns) or pixels.size != one.rows * one.columns:
        raise FormatError(
            f"pixels of shape {pixels.shape}, but the header states {one.rows} rows and "
            f"{one.columns} columns",
            path=one.path,
        )
    pixels = pixels.reshape(one.rows, one.columns)
    if dtype.kind == "f":
        return (pixels * one.slope + one.intercept).astype(dtype)
    # Integers are rescaled in a wider type, so that nothing overflows before it is stored.
    return pixels.astype(np.int64 if dtype.itemsize > 2 else np.int32) * int(one.slope) + int(
        one.intercept
    )


def _in_child(one: Plane, dataset: Any) -> NDArray[Any]:
    """The pixels of a compressed slice. Damaged data can crash, hang or blow up a codec, so it runs
    in a child process.
    """
    nbytes = one.rows * one.columns * 4
    refuse_large(nbytes, len(dataset.PixelData))
    return apart.call("dicom.values:decoded", str(one.path), nbytes=nbytes)[1][0]


def decoded(path: str) -> apart.Found:
    """The pixels of a file as stored, for ``apart.call``."""
    with told(path, "DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {}, [_decoded(open_dataset(path))]


def _decoded(dataset: Any) -> NDArray[Any]:
    """The pixels as stored.

    Raises:
        UsageError: the extra with the decoders is not installed.
        FormatError: no decoder can read them.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit, JPEGLossless

    syntax, why = dataset.file_meta.TransferSyntaxUID, ""
    if syntax == JPEGExtended12Bit and dataset.BitsStored > 8:
        # pydicom does not pass 12-bit JPEG to GDCM, which takes the process from the stream and
        # decodes it: the stated syntax only has to be another process of JPEG.
        dataset.file_meta.TransferSyntaxUID = syntax = JPEGLossless
    plugins: list[str] = [""]  # pydicom reads what is not compressed
    if syntax.is_encapsulated:
        try:
            plugins = sorted(get_decoder(syntax).available_plugins, key=DECODERS.index)
        except NotImplementedError:
            plugins, why = [], "not supported"
    for plugin in plugins:
        dataset.pixel_array_options(decoding_plugin=plugin)
        # The decoders are plug-ins with exceptions of their own.
        try:
            pixels: NDArray[Any] = dataset.pixel_array
            return pixels
        except Exception as error:
            why = why or str(error).strip().splitlines()[0][:150]
    if syntax.is_encapsulated and why != "not supported":
        require_extra("dicom", syntax.name)
    raise FormatError(f"the pixels cannot be decoded ({syntax.name}): {why}")


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Convert int32 to int16 or uint16 if the values fit."""
    if array.dtype != np.int32:
        return array
    low, high = int(array.min()), int(array.max())
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array

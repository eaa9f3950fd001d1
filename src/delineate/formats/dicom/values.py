"""The voxels of a DICOM series, rescaled with the slope and intercept of each slice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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
from .stated import merged, padding_of, stated_in
from .suv import as_suv

# Plug-ins of pydicom in the order in which they are tried. Those of the core come first, so that
# the extra changes no pixel. None of them has a licence that binds users.
DECODERS = ("pydicom", "pillow", "pyjpegls", "gdcm", "pylibjpeg")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
RLE = "1.2.840.10008.1.2.5"
BYTES_A_CALL = 1 << 26  # of the frames that the child process returns at once


def read_series(series: Series, unit: str = "") -> Volume:
    """Read the volume (I, J, K) = (column, row, slice); with ``unit`` "suv" as SUV by body weight.

    The dtype is int16 if the rescaled values are whole and fit (else uint16 or int32), or float32.
    The unit is "HU" for CT with a rescale, "Bq/ml" or "SUV" for PET that states it, else "a.u.";
    ``meta`` has modality, patient, series, study and description, and what ``stated`` finds.

    Raises:
        FormatError: an object that is not supported, pixels that cannot be decoded, or no SUV.
        GeometryError: positions that do not form an evenly spaced stack.
    """
    with told(series.files[0].parent, "DICOM series"):
        grid, ordered = layout(series)
    # (slice, row, column) in memory, so that each plane fills one contiguous block.
    dtype = np.dtype(_dtype(ordered))
    with told(series.files[0].parent):
        refuse_large(math.prod(grid.shape) * dtype.itemsize)
    array = np.empty((grid.shape[2], grid.shape[1], grid.shape[0]), dtype)
    stated = merged(
        [
            _fill(array, path, {k: ordered[k] for k in places})
            for path, places in _by_file(ordered).items()
        ]
    )
    volume = _narrowed(array).transpose(2, 1, 0)
    if padding := stated.pop("stored_padding", None):
        stated["padding"] = padding_of(padding, ordered, series.unit)
    meta = {
        "modality": series.modality,
        "patient": series.patient_id,
        "series": series.uid,
        "study": series.study,
        "description": series.description,
        "spacing_known": True,
        "place_known": True,
        **stated,
    }
    # The source is the folder of the series, or the folder above if it is spread over several.
    source = (
        series.files[0].parent
        if len({p.parent for p in series.files}) == 1
        else series.files[0].parents[1]
    )
    found = Volume(volume, grid, series.unit, str(source), meta)
    return as_suv(found, series) if unit == "suv" else found


def _dtype(ordered: Sequence[Plane]) -> type[np.generic]:
    """Choose int16 or int32 if every rescaled value is whole and fits, else float32."""
    low = high = 0.0
    for one in ordered:
        if one.lookup:
            low, high = min(low, -32768), max(high, 65535)
            continue
        if not one.bits or one.slope != round(one.slope) or one.intercept != round(one.intercept):
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


def _by_file(ordered: Sequence[Plane]) -> dict[Path, list[int]]:
    """The planes of each file, so that it is read once."""
    places: dict[Path, list[int]] = {}
    for k, one in enumerate(ordered):
        places.setdefault(one.path, []).append(k)
    return places


def _fill(array: NDArray[Any], path: Path, planes: Mapping[int, Plane]) -> dict[str, Any]:
    """Decode a file, and write the values of its planes to their places in ``array``; returns what
    its header states about them.
    """
    import pydicom

    with told(path, "DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = open_dataset(path)
        if not any(name in dataset for name in PIXELS):
            raise FormatError("a DICOM image without pixel data")
        if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
            # The default transfer syntax if none is stated (PS3.5 10.1).
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        frames = sorted({one.frame or 0 for one in planes.values()})
        for frame, pixels in zip(frames, _frames(path, dataset, frames), strict=True):
            for k, one in planes.items():
                if (one.frame or 0) == frame:
                    array[k] = _rescaled(_cut(pixels, one), one, dataset, array.dtype)
        return stated_in(dataset)


def _frames(path: Path, dataset: Any, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The frames of a file as stored. Damaged data can crash, hang or blow up a codec, so that runs
    in a child process.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == RLE:
        for frame in frames:
            yield _decoded(dataset, frame)
        return
    nbytes = dataset.Rows * dataset.Columns * 4
    refuse_large(nbytes, len(dataset.PixelData))
    # A call returns frames of about as many bytes.
    step = max(1, BYTES_A_CALL // nbytes)
    for start in range(0, len(frames), step):
        part = frames[start : start + step]
        size = nbytes * len(part)
        yield from apart.call("dicom.values:decoded", str(path), list(part), nbytes=size)[1]


def _cut(pixels: NDArray[Any], one: Plane) -> NDArray[Any]:
    """The pixels of a plane (rows, columns): those of its frame, or of its tile in a mosaic."""
    if one.tile is not None:
        top, bottom, left, right = one.tile
        pixels = pixels[top:bottom, left:right]
    if pixels.shape != (one.rows, one.columns):
        raise FormatError(
            f"pixels of shape {pixels.shape}, but the header states {one.rows} rows and "
            f"{one.columns} columns"
        )
    return pixels


def _rescaled(pixels: NDArray[Any], one: Plane, dataset: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of stored pixels (rows, columns), PS3.3 C.11.1."""
    if one.lookup:
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(pixels, dataset))
    if dtype.kind == "f":
        return (pixels * one.slope + one.intercept).astype(dtype)
    # Integers are rescaled in a wider type, so that nothing overflows before it is stored.
    return pixels.astype(np.int64 if dtype.itemsize > 2 else np.int32) * int(one.slope) + int(
        one.intercept
    )


def decoded(path: str, frames: Sequence[int]) -> apart.Found:
    """The frames of a file as stored, for ``apart.call``."""
    with told(path, "DICOM image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = open_dataset(path)
        return {}, [_decoded(dataset, frame) for frame in frames]


def _decoded(dataset: Any, frame: int = 0) -> NDArray[Any]:
    """The pixels of a frame as stored, (rows, columns) or (rows, columns, samples).

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
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise FormatError(f"the pixels cannot be decoded ({syntax.name}): not supported") from None
    plugins: list[str] = [""]  # pydicom reads what is not compressed
    if syntax.is_encapsulated:
        plugins = sorted(decoder.available_plugins, key=DECODERS.index)
    # pydicom masks the bits above BitsStored, but only if these are the lowest.
    unused = 0
    if "PixelData" in dataset and (not syntax.is_encapsulated or syntax == RLE):
        unused = int(dataset.get("HighBit", dataset.BitsStored - 1)) + 1 - dataset.BitsStored
    options: dict[str, Any] = {"correct_unused_bits": not unused}
    for plugin in plugins:
        # The decoders are plug-ins with exceptions of their own.
        try:
            pixels, _ = decoder.as_array(dataset, index=frame, decoding_plugin=plugin, **options)
            return _masked(pixels, dataset, unused) if unused else pixels
        except Exception as error:
            why = why or str(error).strip().splitlines()[0][:150]
    if syntax.is_encapsulated:
        require_extra("dicom", syntax.name)
    raise FormatError(f"the pixels cannot be decoded ({syntax.name}): {why}")


def _masked(pixels: NDArray[Any], dataset: Any, unused: int) -> NDArray[Any]:
    """Pixels whose lowest ``unused`` bits are not part of the value, PS3.5 8.1.1."""
    above = 8 * pixels.itemsize - unused - dataset.BitsStored
    if unused < 0 or above < 0:
        raise FormatError(
            f"HighBit {dataset.HighBit} does not fit {dataset.BitsStored} of "
            f"{dataset.BitsAllocated} bits"
        )
    # The shift to the right repeats the sign.
    return np.asarray((pixels << above) >> (above + unused))


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Convert int32 to int16 or uint16 if the values fit."""
    if array.dtype != np.int32:
        return array
    low, high = int(array.min()), int(array.max())
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array

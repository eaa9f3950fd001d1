"""The voxels of a DICOM series, rescaled with the slope and intercept of each slice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError
from ....core.inputs import refuse_large
from ....core.machine import cores
from ....core.volume import Volume, stack_channels
from ....extras import require_extra
from ... import apart, raster
from ...disk import told
from ..doubts import doubts_about
from ..geometry import layout, tilt_of
from ..header.elements import Pixels
from ..header.file import Plane, Series, lenient, open_dataset
from .coded import refuse_contradictions
from .pixels import is_plain, plain_frames, refuse_more
from .stated import merged, padding_of
from .suv import as_suv

# Plug-ins of pydicom in the order in which they are tried. Those of the core come first, so that
# the extra changes no pixel. None of them has a licence that binds users.
DECODERS = ("pydicom", "pillow", "pyjpegls", "gdcm", "pylibjpeg")
RLE = "1.2.840.10008.1.2.5"
RLE_HERE = 1 << 25  # pixels; a child that decodes more has caught up with its start
PLANES_A_WORKER = 8  # a thread, and a child that decodes, take their time to start
MASKED = "bits above BitsStored are set in its pixels; they are no part of the values"
IN_VOLUME = "positions are those in the volume (ImagePositionVolume), not in the patient"
BYTES_A_CALL = 1 << 26  # of the frames that the child process returns at once


def read_series(series: Series, unit: str = "") -> Volume:
    """Read the volume (I, J, K) = (column, row, slice), colours as (C, I, J, K); with ``unit``
    "suv" as SUV by body weight.

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
    columns, rows, slices = grid.shape
    first = ordered[0]
    shape = (slices, *((3,) if first.is_colour else ()), rows, columns)
    with told(series.files[0].parent):
        refuse_large(math.prod(shape) * dtype.itemsize)
    array = np.empty(shape, dtype)
    stated = merged(_filled(array, ordered))
    _interpolate(array, ordered)
    volume = np.moveaxis(_narrowed(array), 0, -1).swapaxes(-3, -2)
    in_volume = () if first.in_patient else (IN_VOLUME,)
    of_planes = (*tilt_of(grid), *doubts_about(series, ordered), *in_volume)
    notes = [*series.notes, *of_planes, *stated.pop("notes", ())]
    if padding := stated.pop("stored_padding", None):
        stated["padding"] = padding_of(padding, ordered, series.unit)
    meta = {
        "modality": series.modality,
        "patient": series.patient_id,
        "series": series.uid,
        "study": series.study,
        "description": series.description,
        **({"part": series.part} if series.part else {}),
        "spacing_known": bool(first.spacing),
        "place_known": bool(first.position and first.orientation and first.in_patient),
        **({"channels": list(raster.COLOURS)} if first.is_colour else {}),
        **({"spacing_by": first.spacing_by} if first.spacing_by != "PixelSpacing" else {}),
        **stated,
        **fixed_in(series, ordered),
        **({"notes": notes} if notes else {}),
    }
    # The source is the folder of the series, or the folder above if it is spread over several.
    source = (
        series.files[0].parent
        if len({p.parent for p in series.files}) == 1
        else series.files[0].parents[1]
    )
    found = Volume(volume, grid, series.unit, str(source), meta)
    return as_suv(found, series) if unit == "suv" else found


def fixed_in(series: Series, ordered: Sequence[Plane]) -> dict[str, Any]:
    """The ``meta`` of a series that was made even: fixed, a sentence, and interpolated_slices."""
    if not series.fixed:
        return {}
    missing = [k for k, one in enumerate(ordered) if one.interpolated]
    facts: dict[str, Any] = {"interpolated_slices": missing} if missing else {}
    return {"fixed": series.fixed, **facts}


def read_joined(series: Sequence[Series], unit: str = "") -> Volume:
    """Read volumes at the same positions as one of (C, I, J, K), in the order of acquisition; its
    channels are named by the parts of the series.

    Raises:
        GeometryError: they are not at the same positions. FormatError: see ``read_series``.
    """
    ordered = sorted(series, key=lambda one: _time(one.planes[0]))
    volumes = [read_series(one, unit) for one in ordered]
    names = [one.part for one in ordered]
    joined = stack_channels(volumes, names)
    meta = {k: v for k, v in joined.meta.items() if k != "part"} | {"channels": names}
    if notes := dict.fromkeys(note for one in volumes for note in one.meta.get("notes", ())):
        meta["notes"] = [*notes]
    if made_even := [one.fixed for one in ordered if one.fixed]:
        every = (k for one in volumes for k in one.meta.get("interpolated_slices", ()))
        meta |= {"fixed": "; ".join(made_even), "interpolated_slices": sorted({*every})}
    return replace(joined, meta=meta)


def _time(one: Plane) -> tuple[Any, ...]:
    marks = one.marks
    return (marks.temporal or 0, marks.acquired, marks.trigger_time or 0.0, marks.number or 0)


def _interpolate(array: NDArray[Any], ordered: Sequence[Plane]) -> None:
    """Set missing planes of (slice, row, column), which are linear between their neighbours."""
    true = [k for k, one in enumerate(ordered) if not one.interpolated]
    for start, end in pairwise(true):
        for k in range(start + 1, end):
            share = (k - start) / (end - start)
            between = array[start] * (1 - share) + array[end] * share
            array[k] = np.rint(between) if array.dtype.kind in "iu" else between


def _dtype(ordered: Sequence[Plane]) -> type[np.generic]:
    """Choose uint8 or uint16 for colours; else int16 or int32 if every rescaled value is whole and
    fits, else float32.
    """
    if ordered[0].is_colour:
        return np.uint16 if max(one.bits for one in ordered) > 8 else np.uint8
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


def _filled(array: NDArray[Any], ordered: Sequence[Plane]) -> list[Mapping[str, Any]]:
    """Write the values of all planes to their places in ``array``, several files at a time; returns
    what the headers state about them.
    """
    # Planes of one file are read together, in as many parts as cores.
    places: dict[Path, list[int]] = {}
    for k, one in enumerate(ordered):
        if not one.interpolated:
            places.setdefault(one.path, []).append(k)
    workers = max(1, min(cores(), len(ordered) // PLANES_A_WORKER))
    # RLE is decoded in Python, where threads wait for each other.
    is_rle = any(p and p.stored and p.stored.syntax == RLE for p in (o.pixels for o in ordered))
    rle_here = sum(one.rows * one.columns for one in ordered) <= RLE_HERE
    workers = 1 if is_rle and rle_here else workers
    parts = 1 if len(places) >= workers else workers
    jobs = [
        (path, {k: ordered[k] for k in several[start : start + size]})
        for path, several in places.items()
        for size in [-(-len(several) // parts)]
        for start in range(0, len(several), size)
    ]
    # The filters of warnings belong to the process, not to a thread.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers, "dicom") as pool:
        warnings.simplefilter("ignore")
        try:
            return list(pool.map(lambda job: _fill(array, job[0], job[1], rle_here), jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fill(
    array: NDArray[Any], path: Path, planes: Mapping[int, Plane], rle_here: bool = True
) -> Mapping[str, Any]:
    """Write the values of the planes of a file to their places in ``array``; returns what its
    header states about them.
    """
    notes: list[str] = []
    with told(path, "DICOM image"):
        first = next(iter(planes.values()))
        stored = first.pixels
        if stored is None or (stored.stored is None and not stored.is_inflated):
            raise FormatError("a DICOM image without pixel data")
        frames = sorted({one.frame or 0 for one in planes.values()})
        for frame, pixels in zip(
            frames, _frames(path, stored, frames, rle_here, notes), strict=True
        ):
            for k, one in planes.items():
                if (one.frame or 0) == frame:
                    _rescale(_cut(pixels, one), one, array[k])
    if not notes:
        return first.stated
    return {**first.stated, "notes": [*first.stated.get("notes", ()), notes[0]]}


def _frames(
    path: Path, header: Pixels, frames: Sequence[int], rle_here: bool, notes: list[str]
) -> Iterator[NDArray[Any]]:
    """The frames of a file as stored; what is odd about them is added to ``notes``. Damaged data
    can crash, hang or blow up a codec, so that runs in a child process; RLE cannot, and runs there
    unless ``rle_here``.
    """
    refuse_more(header)
    if is_plain(header):
        above, unused = _spare_bits(header.allocated, header.bits, header.high)
        for pixels in plain_frames(path, header, frames):
            if unused:
                yield _masked(pixels, above, unused)
            elif above and _exceeds(pixels, int(header.bits or 0)):
                if not _is_unextended(pixels, int(header.bits or 0)):
                    notes.append(MASKED)
                yield _masked(pixels, above, 0)
            else:
                yield pixels
        return
    stored = header.stored
    if stored is None or stored.nbytes is not None or (stored.syntax == RLE and rle_here):
        dataset = _dataset(path)
        for frame in frames:
            yield _decoded(dataset, frame)
        return
    nbytes = header.rows * header.columns * 4
    refuse_large(nbytes, stored.held)
    # A call returns frames of about as many bytes.
    step = max(1, BYTES_A_CALL // nbytes)
    for start in range(0, len(frames), step):
        part = frames[start : start + step]
        size = nbytes * len(part)
        yield from apart.call("dicom.values.read:decoded", str(path), list(part), nbytes=size)[1]


def _dataset(path: str | Path) -> Any:
    """pydicom's dataset, with the default transfer syntax if none is stated (PS3.5 10.1)."""
    import pydicom

    dataset = open_dataset(path)
    if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        refuse_contradictions(dataset, syntax == RLE)
    return dataset


def _cut(pixels: NDArray[Any], one: Plane) -> NDArray[Any]:
    """The pixels of a plane (rows, columns), or (rows, columns, 3): those of its frame, or of its
    tile in a mosaic.
    """
    if one.tile is not None:
        top, bottom, left, right = one.tile
        pixels = pixels[top:bottom, left:right]
    if pixels.shape[:2] != (one.rows, one.columns):
        raise FormatError(
            f"pixels of shape {pixels.shape}, but the header states {one.rows} rows and "
            f"{one.columns} columns"
        )
    return pixels


def _rescale(pixels: NDArray[Any], one: Plane, out: NDArray[Any]) -> None:
    """Write the values of stored pixels (rows, columns) to ``out``, PS3.3 C.11.1; colours become
    (3, rows, columns).
    """
    if one.is_colour:
        out[...] = _coloured(pixels, one).transpose(2, 0, 1)
    elif one.lookup:
        out[...] = _looked_up(pixels, one)
    elif out.dtype.kind == "f":
        if abs(one.slope) * 2.0**one.bits + abs(one.intercept) > np.finfo(np.float32).max:
            raise FormatError(
                f"RescaleSlope {one.slope:g} and RescaleIntercept {one.intercept:g} give values "
                "that no number of 32 bits holds"
            )
        out[...] = pixels * one.slope + one.intercept
    else:
        # The result fits (``_dtype``), so that integers which wrap around on the way are right.
        np.copyto(out, pixels, casting="unsafe")
        if one.slope != 1:
            out *= np.array(int(one.slope)).astype(out.dtype)
        if one.intercept:
            out += np.array(int(one.intercept)).astype(out.dtype)


def _looked_up(pixels: NDArray[Any], one: Plane) -> NDArray[Any]:
    """The values of stored pixels by the modality lookup table (PS3.3 C.11.1.1)."""
    from pydicom.pixels.processing import apply_modality_lut

    dataset = open_dataset(one.path, stop_before_pixels=True)
    item = dataset.ModalityLUTSequence[0]
    # The first value has the sign of the pixels, whatever VR the descriptor has, and the numbers
    # of 16 bits count from 1 to 65536.
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    values = item.LUTData
    held = len(values) // (2 if bits > 8 else 1) if isinstance(values, bytes) else len(values)
    if held < (count % 0x10000 or 0x10000):
        raise FormatError(f"its modality lookup table states {count} values and has {held}")
    first = (first + 0x8000) % 0x10000 - 0x8000 if one.signed else first % 0x10000
    with lenient(one.path, "DICOM image"):
        item.LUTDescriptor = [count % 0x10000, first, bits]
        # pydicom subtracts the first value in the type of the pixels, which may wrap around.
        return np.asarray(apply_modality_lut(pixels.astype(np.int32), dataset))


def same_values(one: Plane, other: Plane) -> bool:
    """Whether two planes of one size have the same rescaled values."""
    pair = np.empty((2, *((3,) if one.is_colour else ()), one.rows, one.columns))
    for n, plane in enumerate((one, other)):
        _fill(pair, plane.path, {n: plane})
    return np.array_equal(*pair)


def _coloured(pixels: NDArray[Any], one: Plane) -> NDArray[Any]:
    """Red, green and blue (rows, columns, 3); those of a palette have 8 bits."""
    if one.photometric != "PALETTE COLOR":
        return pixels
    from pydicom.pixels.processing import apply_color_lut

    dataset = open_dataset(one.path, stop_before_pixels=True)
    colours = np.asarray(apply_color_lut(pixels, dataset))[..., :3]
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def decoded(path: str, frames: Sequence[int]) -> apart.Found:
    """The frames of a file as stored, for ``apart.call``."""
    with lenient(path, "DICOM image"):
        dataset = _dataset(path)
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
            pixels, how = decoder.as_array(dataset, index=frame, decoding_plugin=plugin, **options)
            if pixels.ndim > 2 and how["photometric_interpretation"] != "RGB":
                raise FormatError(f"colours in {how['photometric_interpretation']}")
            return _masked(pixels, *unused_bits(dataset)) if unused else pixels
        except Exception as error:
            why = why or str(error).strip().splitlines()[0][:150]
    if syntax.is_encapsulated:
        require_extra("dicom", syntax.name)
    raise FormatError(f"the pixels cannot be decoded ({syntax.name}): {why}")


def unused_bits(dataset: Any) -> tuple[int, int]:
    """The number of bits above and below the value in each pixel, PS3.5 8.1.1.

    Raises:
        FormatError: the header contradicts itself.
    """
    return _spare_bits(dataset.BitsAllocated, dataset.BitsStored, dataset.get("HighBit"))


def _spare_bits(allocated: Any, bits: Any, high: Any) -> tuple[int, int]:
    """``unused_bits`` of the values of the header; ``high`` may be None."""
    allocated, bits = int(allocated), int(bits)
    below = (bits - 1 if high is None else int(high)) + 1 - bits
    if below < 0 or below + bits > allocated:
        raise FormatError(f"HighBit {high} does not fit {bits} of {allocated} bits")
    return allocated - bits - below, below


def _exceeds(pixels: NDArray[Any], bits: int) -> bool:
    """Whether values need more than ``bits``, so that others are set."""
    if pixels.dtype.kind == "u":
        return bool(pixels.max() >> bits)
    return bool(pixels.max() >> (bits - 1) or pixels.min() < -(1 << (bits - 1)))


def _is_unextended(pixels: NDArray[Any], bits: int) -> bool:
    """Whether values are signed, and the bits above all those that exceed ``bits`` are 0."""
    if pixels.dtype.kind == "u":
        return False
    above = pixels >> bits
    return not ((above != 0) & (above != -1)).any()


def _masked(pixels: NDArray[Any], above: int, below: int) -> NDArray[Any]:
    """Pixels without the bits that are not part of the value."""
    # The shift to the right repeats the sign.
    return np.asarray((pixels << above) >> (above + below))


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Convert int32 to int16 or uint16 if the values fit."""
    if array.dtype != np.int32:
        return array
    low, high = int(array.min()), int(array.max())
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array

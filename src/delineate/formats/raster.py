"""PNG, JPEG, TIFF, GIF, BMP and PNM (.ppm, .pgm, .pbm): 2-D images, stacks of them, and multi-page
TIFF. Colours become channels.

Axes: i is the column (rightwards in the image), j the row (downwards), k the page. These formats
store no position in space. The grid follows the radiological convention, with i towards the
patient's left and j towards the back (codes "LPS"), so its affine is diag(-sx, -sy, sz). If no
spacing is stated it is 1 mm and ``meta["spacing_known"]`` is False; resolution tags are ignored
because they refer to screens and paper. OME-TIFF and ImageJ's TIFF state the size of a pixel as
microscopes measure it, which is used. Mask values are kept (0/255 stays 0/255). Colours are never
collapsed; an alpha channel that is opaque everywhere is dropped. A mask with a palette is read by
index: the index is the label value, and its colour is only for display. The orientation that a
camera or a scanner recorded (EXIF, TIFF) is applied to images and masks alike.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ..core.atomic import make_folder, replacing
from ..core.errors import FormatError, GeometryError, OutputError
from ..core.grid import Grid
from ..core.inputs import refuse_large
from ..core.labels import LabelSet
from ..core.volume import Volume
from .disk import (
    LABELS_KEY,
    Kept,
    head_of,
    labels_as_text,
    mm_of,
    names_in_text,
    opened,
    refuse_others,
    smallest_labels,
    told,
)

KINDS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "PNM")
ALPHA = "alpha"
COLOURS = ("red", "green", "blue")
CHANNEL_NAMES = {
    1: (),
    2: ("grey", ALPHA),
    3: COLOURS,
    4: (*COLOURS, ALPHA),
}
WHITE, BLACK, WHITE_INDEX = (255, 255, 255), (0, 0, 0), 0
# Of a byte, at most: a code of LZW has at least 3 bits and stands for at most 4096 pixels.
GIF_PIXELS = 8 * 4096 // 3
MOST_MASKS = 1 << 26  # bytes of the masks that are kept
PNG_LEVEL = 3  # of zlib: a CT slice takes a quarter of the time of 6, and 4 % more bytes
SAME_PIXELS = 0.01  # relative difference of sizes that are stated twice
ORIENTATION = 274  # tag of EXIF and TIFF
# Plain and binary bitmaps, grey and colour maps; a size follows, or a comment.
_PNM = re.compile(rb"P[1-6]\s+[\d#]")
PHOTOMETRIC = 262  # tag of TIFF, and its values
WHITE_IS_ZERO, PALETTE, YCBCR = 0, 3, 6
INKS = {5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
TIFF_JPEG = (6, 7, 34892, 33007)  # compressions
OTHER_AXES = {"T": "time points", "C": "channels", "L": "wavelengths", "E": "wavelengths"}
TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # kind of colours -> samples of a pixel
# Passes of an interlaced PNG: first column and row, and the steps between them.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
# Pillow mode of the file -> mode in which it is read.
MODES = {
    "1": "1",
    "L": "L",
    "P": "RGB",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "LA": "LA",
    "PA": "RGBA",
    "I": "I",
    "F": "F",
    "I;16": "I;16",
    "I;16B": "I;16B",
    "I;16L": "I;16L",
}


def kind_of(head: bytes) -> str:
    """Return the format from a file's first bytes: one of ``KINDS``, or "" (none of them)."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # Bytes 6 to 9 of a BMP are reserved and zero; two letters alone would be a weak sign.
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    return "TIFF" if head.startswith(TIFF_MAGICS) else ""


def grid_of(shape: Sequence[int], spacing_mm: Sequence[float] | None) -> Grid:
    """Build the grid of an image or stack of (I, J, K) voxels.

    Args:
        shape: (I, J, K).
        spacing_mm: (column, row, slice); a single slice may have two values. None: 1 mm.

    Raises:
        GeometryError: the spacing is not three positive values, or it is two values for a stack.
    """
    values = [float(v) for v in spacing_mm or (1.0, 1.0, 1.0)]
    values = [*values, 1.0] if len(values) == 2 and shape[2] == 1 else values
    if len(values) != 3 or not np.isfinite(values).all() or min(values) <= 0:
        raise GeometryError(
            f"a spacing must be three positive values in mm (column, row, slice), found {values}"
        )
    return Grid((shape[0], shape[1], shape[2]), np.diag([-values[0], -values[1], values[2], 1.0]))


def read(path: str | Path, kind: str, by_index: bool = False) -> Volume:
    """Read one file: (I, J, 1), colours as (C, I, J, 1), or a multi-page TIFF as (I, J, K); unit
    "a.u.".

    Args:
        by_index: a palette gives indices (I, J, 1) instead of colours; ``meta["palette"]`` then has
            the colour (red, green, blue) of each index.

    Raises:
        FormatError: the file is damaged, or its pixels cannot be kept without loss.
    """
    with told(path, f"{kind} file"):
        if kind == "TIFF":
            picture = _tiff(Path(path))
        elif by_index:
            picture = _masks(Path(path)).copied()
        else:
            picture = _picture(Path(path), by_index)
        array, names, palette = picture.array, picture.channels, picture.palette
        meta: dict[str, Any] = {
            "modality": "",
            "patient": "",
            "spacing_known": picture.spacing_mm is not None,
            "place_known": False,
        }
        if names:
            meta["channels"] = list(names)
        if palette:
            meta["palette"] = palette
        if picture.notes:
            meta["notes"] = list(picture.notes)
        if picture.names:
            meta["names"] = dict(picture.names)
        grid = grid_of(array.shape[-3:], picture.spacing_mm)
        return Volume(array, grid, source=str(path), meta=meta)


def read_names(path: str | Path, kind: str) -> dict[int, str]:
    """Value -> name of the structures that ``write_png`` stored; {} for other files."""
    from PIL import Image

    if kind != "PNG":
        return {}
    with told(path, f"{kind} file"), _unlimited(), Image.open(path) as image:
        return names_in_text(str(image.info.get(LABELS_KEY, "")))


def read_grid(path: str | Path, kind: str, spacing_mm: Sequence[float] | None = None) -> Grid:
    """Read the grid that ``read`` gives, from the header alone except for TIFF; ``spacing_mm`` is
    that of pictures which cannot state one.
    """
    with told(path, f"{kind} file"):
        if kind == "TIFF":
            picture = _tiff(Path(path))
            return grid_of(picture.array.shape[-3:], picture.spacing_mm)
        return grid_of(size_of(path, kind), spacing_mm)


def size_of(path: str | Path, kind: str) -> tuple[int, int, int]:
    """Read (I, J, K); from the header alone except for TIFF."""
    with told(path, f"{kind} file"):
        if kind == "TIFF":
            return read_grid(path, kind).shape
        from PIL import Image

        with _unlimited(), opened(path) as file, Image.open(file) as image:
            # Orientations from 5 on exchange rows and columns.
            turned = image.getexif().get(ORIENTATION, 1) > 4
            return (image.height, image.width, 1) if turned else (image.width, image.height, 1)


def read_stack(
    files: Sequence[Path],
    spacing_mm: Sequence[float] | None,
    source: str,
    by_index: bool = False,
) -> Volume:
    """Read images of one size as the slices of a volume, in the order given; ``by_index`` as for
    ``read``.

    Returns:
        (I, J, K), or (C, I, J, K) for colours.

    Raises:
        GeometryError: the sizes differ.
        FormatError: grey-level and colour images are mixed.
    """
    first = read(files[0], kind_of(head_of(files[0])), by_index=by_index)
    shape = first.channels_array.shape
    stack = np.empty((*shape[:3], len(files)), first.array.dtype)
    counts: Counter[str] = Counter()
    # Every slice must have the size, channels and dtype of the first one.
    for k, path in enumerate(files):
        one = read(path, kind_of(head_of(path)), by_index=by_index) if k else first
        if one.grid.shape != first.grid.shape or one.grid.shape[2] != 1:
            sizes = f"{one.grid.shape[:2]}, but {first.grid.shape[:2]} in {files[0].name}"
            raise GeometryError(f"slices of a stack must have one size, found {sizes}", path=path)
        if one.channels != first.channels or one.array.dtype != first.array.dtype:
            raise FormatError(
                "slices of a stack must have the same channels and dtype, found "
                f"{one.channels} channel(s) of {one.array.dtype}, but {first.channels} of "
                f"{first.array.dtype} in {files[0].name}",
                path=path,
            )
        stack[..., k] = one.channels_array[..., 0]
        counts.update(one.meta.get("notes", ()))
        counts.update(_other_pixels(one, spacing_mm))
    meta = {**first.meta, "spacing_known": spacing_mm is not None}
    if counts:
        meta["notes"] = [
            note if count == len(files) else f"{count} of {len(files)} slices: {note}"
            for note, count in counts.items()
        ]
    array = stack if first.array.ndim == 4 else stack[0]
    return Volume(array, grid_of(array.shape[-3:], spacing_mm), source=source, meta=meta)


def _other_pixels(one: Volume, spacing_mm: Sequence[float] | None) -> tuple[str, ...]:
    """A sentence about a picture that states other pixels than those of its stack."""
    own = one.spacing_mm[:2]
    stated = tuple(spacing_mm or own)[:2]
    if not one.meta["spacing_known"] or np.allclose(own, stated, rtol=SAME_PIXELS):
        return ()
    found, used = (" x ".join(f"{mm:.4g}" for mm in pair) for pair in (own, stated))
    return (f"it states pixels of {found} mm; the {used} mm that were stated count",)


Palette = dict[int, tuple[int, int, int]]


@dataclass(frozen=True)
class _Picture:
    """What one file holds: its pixels (I, J, 1) or (C, I, J, 1), the names of its channels, its
    palette if it is read by index, the names of values and the spacing that it states.
    """

    array: NDArray[Any]
    channels: tuple[str, ...] = ()
    palette: Palette = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    spacing_mm: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()

    def copied(self) -> _Picture:
        """With pixels of its own."""
        return replace(self, array=self.array.copy(), palette=dict(self.palette))


def _picture(path: Path, by_index: bool) -> _Picture:
    """Read any file but a TIFF; refuse what Pillow would reduce."""
    from PIL import Image, ImageOps

    with _unlimited(), opened(path) as file:
        is_png = kind_of(file.read(16)) == "PNG"
        if is_png:
            _check_png(file, path.stat().st_size)
        file.seek(0)
        with Image.open(file) as image:
            _refuse_large(image, path)
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise FormatError(f"{frames} frames; allowed is one picture")
            turned = ImageOps.exif_transpose(image)
            stated = str(image.info.get(LABELS_KEY, "")) if is_png else ""
            names = names_in_text(stated)
            if by_index and turned.mode == "P":
                palette = _palette(turned)
                index = np.array(turned)
                if _is_bilevel(palette):
                    index, palette = (index == WHITE_INDEX).astype(np.uint8), {}
                return _Picture(*_oriented(index), palette, names)
            return _Picture(*_pixels(turned), names=names)


# Masks are read to derive the values of a cohort, and again to be checked.
_masks = Kept(lambda path: _picture(path, True), lambda one: one.array.nbytes, MOST_MASKS)


@contextlib.contextmanager
def _unlimited() -> Iterator[None]:
    """Without Pillow's warnings, as damaged EXIF does not change the pixels, and without its limit
    of pixels: whole-slide images and large masks are legitimate, and their size is checked here.
    """
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def mask_in_png(content: bytes, path: str | Path, need: Callable[[int], None]) -> NDArray[np.bool_]:
    """The mask (rows, columns) in the bytes of a PNG: the pixels above 0 of its only channel.

    Args:
        content: of the PNG.
        path: the file that has it, for errors.
        need: called with the bytes that the pixels need; refuses too many.

    Raises:
        FormatError: it is damaged, no PNG, or has several channels.
    """
    from PIL import Image

    with (
        told(path, "mask"),
        _unlimited(),
        Image.open(io.BytesIO(content), formats=("PNG",)) as image,
    ):
        if len(image.getbands()) > 1:
            raise FormatError(f"a mask has the colours {', '.join(image.getbands())}; it needs one")
        need(4 * image.width * image.height)
        return np.asarray(image) > 0


def _refuse_large(image: Any, path: Path) -> None:
    """Refuse an open image that would need too much memory, or that is larger than its data;
    Pillow reads it afterwards.
    """
    held = GIF_PIXELS * path.stat().st_size
    if image.format == "GIF" and image.width * image.height > held:
        raise FormatError(
            f"its header states {image.width} x {image.height} pixels, and its "
            f"{path.stat().st_size} bytes hold {held} at most"
        )
    nbytes = image.width * image.height * len(image.getbands()) * (4 if image.mode in "IF" else 1)
    refuse_large(nbytes, path.stat().st_size)


def _is_bilevel(palette: Palette) -> bool:
    """Whether a palette has only white, as its first colour, and black: a picture in black and
    white whose indices were numbered in the order of use. White is the mask, as in one bit.
    """
    return palette.get(WHITE_INDEX) == WHITE and set(palette.values()) == {WHITE, BLACK}


def _palette(image: Any) -> Palette:
    """Index -> colour of every index that the picture's palette has."""
    values = image.getpalette("RGB") or []
    return {
        n: (values[3 * n], values[3 * n + 1], values[3 * n + 2]) for n in range(len(values) // 3)
    }


def _pixels(image: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Convert an open image to an array with its channel names."""
    if image.mode not in MODES:
        raise FormatError(
            f"pixel mode {image.mode} is not supported; allowed: grey levels, palette, RGB, RGBA"
        )
    mode = MODES[image.mode]
    # A palette may hold transparency; then the colours need an alpha channel.
    if image.mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    array = np.array(image if mode == image.mode else image.convert(mode))
    # 16-bit images may be stored big-endian; arrays are always in native byte order.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _oriented(array.astype(np.uint8) if array.dtype == bool else array)


def _oriented(array: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Turn (rows, columns[, samples]) into (I, J, 1) or (C, I, J, 1), with the channel names."""
    if array.ndim == 2:
        return np.ascontiguousarray(array.T)[..., None], ()
    # An alpha channel that is opaque everywhere carries no information.
    if array.shape[2] in (2, 4) and (array[..., -1] == np.iinfo(array.dtype).max).all():
        array = array[..., :-1]
    channels = np.ascontiguousarray(array.transpose(2, 1, 0))[..., None]
    return (channels[0], ()) if len(channels) == 1 else (channels, CHANNEL_NAMES[len(channels)])


def _check_png(file: IO[bytes], nbytes_of_file: int) -> None:
    """Check what Pillow accepts without a word: pixels that end early (it adds black ones), a
    palette that is missing, and 16-bit colours (it drops half of the bits).

    Source: PNG specification (W3C), sections 5 and 11.
    """
    chunks = dict[bytes, bytes]()
    file.seek(8)
    while len(start := file.read(8)) == 8 and start[4:] != b"IEND":
        nbytes = int.from_bytes(start[:4], "big")
        if nbytes > nbytes_of_file:
            raise FormatError(f"truncated: a chunk of {nbytes} bytes is stated")
        chunks[start[4:]] = chunks.get(start[4:], b"") + file.read(nbytes)
        file.seek(4, 1)
    size = chunks.get(b"IHDR", b"")
    if len(start) < 8 or len(size) != 13:
        raise FormatError("truncated: the PNG ends early")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">2I5B", size)
    if depth == 16 and colour in (2, 4, 6):
        raise FormatError(
            "16-bit colour PNG is not supported, as half of its bits would be lost; allowed: "
            "8-bit colour and grey levels of up to 16 bits"
        )
    if colour not in PNG_SAMPLES or depth not in (1, 2, 4, 8, 16) or not width or not height:
        raise FormatError(f"an impossible header: {width} x {height} pixels of {depth} bits")
    if colour == 3 and b"PLTE" not in chunks:
        raise FormatError("the palette is missing")
    # Adam7 stores seven reduced pictures, each with rows of its own.
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    needed = 0
    for left, top, across, down in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0:
            needed += rows * (1 + (columns * depth * PNG_SAMPLES[colour] + 7) // 8)
    refuse_large(needed, nbytes_of_file)
    found, unpacker, data = 0, isal_zlib.decompressobj(), chunks.get(b"IDAT", b"")
    while data and found < needed:
        found += len(unpacker.decompress(data, 1 << 20))
        data = unpacker.unconsumed_tail
    if found < needed:
        raise FormatError(f"truncated: it has {found} of {needed} bytes of pixels")


def _tiff(path: Path) -> _Picture:
    """Read (I, J, K) or (C, I, J, K); pages become k."""
    _refuse_endless(path)
    array, axes, facts = _tiff_series(path)
    pages = _tiff_roles(axes, array.shape)[1]
    notes = [
        f"its {array.shape[a]} {OTHER_AXES[axes[a]]} are read as slices"
        for a in pages
        if axes[a] in OTHER_AXES
    ]
    found = _tiff_picture(array, axes, facts)
    return replace(found, notes=(*facts.notes, *notes))


def _tiff_picture(array: NDArray[Any], axes: str, facts: _TiffFacts) -> _Picture:
    """The picture of an array whose axes have letters as in tifffile."""
    shape = array.shape
    samples, pages = _tiff_roles(axes, shape)
    if len(samples) > 1 or len(pages) > 1 or array.dtype.kind not in "biuf":
        raise FormatError(
            f"a TIFF with axes {axes} of shape {shape} and {array.dtype}; allowed: rows, "
            "columns, one axis of pages, one of colours"
        )
    # Order the axes as (colours, columns, rows, pages); all others have length 1 and are dropped.
    order = [*samples, axes.index("X"), axes.index("Y"), *pages]
    rest = [a for a in range(len(axes)) if a not in order]
    array = array.transpose(*rest, *order).reshape([shape[a] for a in order])
    array = array if pages else array[..., None]
    # Bilevel images become uint8; all others get the native byte order.
    array = (
        array.astype(np.uint8)
        if array.dtype == bool
        else array.astype(array.dtype.newbyteorder("="))
    )
    if not samples:
        return _Picture(np.ascontiguousarray(array), spacing_mm=facts.spacing_mm)
    if axes[samples[0]] == "C":  # of a microscope; only samples of a pixel are colours
        names = facts.channels if len(facts.channels) == len(array) else ()
        return _Picture(np.ascontiguousarray(array), names, spacing_mm=facts.spacing_mm)
    return replace(_tiff_channels(array), spacing_mm=facts.spacing_mm)


def _refuse_endless(path: Path) -> None:
    """Refuse a list of pages that is longer than the file, as a circle is: tifffile would follow it
    for minutes. A list that is cut is left to tifffile.

    Source: TIFF 6.0, section 2, and BigTIFF: the number of tags, the tags, the next page.
    """
    size, listed = path.stat().st_size, 0
    with opened(path) as file:
        head = file.read(16)
        order, is_big = "<>"[head[:1] == b"M"], 43 in head[2:4]
        count, number, tag = ("Q", "Q", 20) if is_big else ("H", "I", 12)
        (at,) = struct.unpack_from(order + number, head, 8 if is_big else 4)
        while 0 < at < size:
            file.seek(at)
            start = file.read(struct.calcsize(count))
            if len(start) < struct.calcsize(count):
                return
            nbytes = tag * struct.unpack(order + count, start)[0]
            listed += nbytes + struct.calcsize(count + number)
            if at + nbytes >= size:
                return
            if listed > size:
                raise FormatError("the list of its pages has no end")
            file.seek(nbytes, 1)
            following = file.read(struct.calcsize(number))
            at = int.from_bytes(following, "little" if order == "<" else "big")


@dataclass(frozen=True)
class _TiffFacts:
    """What a program for microscopes states: (column, row, page) in mm, and names of channels."""

    spacing_mm: tuple[float, float, float] | None = None
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _tiff_series(path: Path) -> tuple[NDArray[Any], str, _TiffFacts]:
    """Read the pixels of the only image series, its axis letters, and what is stated about it."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise FormatError(
                f"a TIFF with {len(file.series)} images of different shapes; allowed: one "
                "image, or pages of one size"
            )
        series = file.series[0]
        _check_tiff(series, path)
        tag = series.keyframe.tags.get(ORIENTATION)
        facts = _facts_of_ome(file) if file.is_ome else _facts_of_imagej(file)
        facts = replace(facts, notes=(*_notes_of_tiff(series.keyframe), *_notes_of_imagej(file)))
        try:
            array = _turned(series.asarray(), series.axes, 1 if tag is None else int(tag.value))
            return array, series.axes, facts
        except ValueError:  # tifffile has no codec for this compression; Pillow has its own
            return (*_tiff_by_pillow(path), facts)


def _notes_of_tiff(page: Any) -> tuple[str, ...]:
    """What the values of a page mean and the array does not show.

    Raises:
        FormatError: colours that are neither grey levels nor red, green and blue.
    """
    stated, tag = page.photometric, page.tags.get(PHOTOMETRIC)
    if not isinstance(stated, int):
        raise FormatError(f"its photometric interpretation is {stated!r}; allowed is one number")
    # tifffile decodes the colours of JPEG.
    if stated in INKS or (stated == YCBCR and page.compression not in TIFF_JPEG):
        raise FormatError(
            f"its colours are stored as {INKS.get(int(stated), 'YCbCr')}; allowed: grey levels, "
            "palette, RGB"
        )
    if stated == PALETTE:
        return ("its palette is not applied: the values are indices",)
    if stated == WHITE_IS_ZERO and page.bitspersample > 1:
        which = "it does not state whether its lowest value is black or white"
        which = which if tag is None else "its lowest value stands for white"
        return (f"{which}; the values are read as they are stored",)
    return ()


def _notes_of_imagej(file: Any) -> tuple[str, ...]:
    """ImageJ's calibration of the values, which other readers do not apply either: c0 + c1 x value
    if cf is 0 (ij.measure.Calibration), such as that of signed pixels, which it stores unsigned.
    """
    stated = file.imagej_metadata or {}
    if "cf" not in stated and "c1" not in stated:
        return ()
    form = {0: "c0 + c1 x value"}.get(stated.get("cf", 0), f"its function {stated.get('cf')}")
    terms = ", ".join(f"{name} {stated[name]}" for name in ("c0", "c1", "vunit") if name in stated)
    return (
        f"it states that intensities are {form} ({terms}; ImageJ); the values are read as they are "
        "stored",
    )


def _facts_of_ome(file: Any) -> _TiffFacts:
    """Sizes of pixels and names of channels, of the OME-XML schema of 2016-06; in micrometres where
    it states no unit.
    """
    from xml.etree import ElementTree  # few pictures have one

    try:
        pixels = ElementTree.fromstring(file.ome_metadata).find("{*}Image/{*}Pixels")
    except (ElementTree.ParseError, ValueError) as error:
        raise FormatError(f"its OME description is no XML ({error})") from error
    if pixels is None:
        return _TiffFacts()
    facts, names = pixels.attrib, [one.get("Name", "") for one in pixels.iterfind("{*}Channel")]
    units = [facts.get(f"PhysicalSize{axis}Unit", "um") for axis in "XYZ"]
    sizes = [facts.get(f"PhysicalSize{axis}", "") for axis in "XYZ"]
    return _TiffFacts(_spacing_of(sizes, units, file), tuple(names) if all(names) else ())


def _facts_of_imagej(file: Any) -> _TiffFacts:
    """Sizes of pixels, by the unit in ImageJ's description; without one, and in inches, the
    resolution is that of a printer.
    """
    stated = file.imagej_metadata or {}
    unit = str(stated.get("unit", "")).replace("\\u00B5", "\u00b5").removeprefix("inch")
    tags = file.pages[0].tags
    across = [tags[name].value for name in ("XResolution", "YResolution") if name in tags]
    sizes = [f"{parts / pixels:.9g}" if pixels else "" for pixels, parts in across]
    sizes = [*sizes, "", ""][:2]
    return _TiffFacts(_spacing_of([*sizes, str(stated.get("spacing", ""))], [unit] * 3, file))


def _spacing_of(
    sizes: Sequence[str], units: Sequence[str], file: Any
) -> tuple[float, float, float] | None:
    """(column, row, page) in mm; None unless all are stated, the last for several pages only."""
    found = []
    for size, unit in zip(sizes, units, strict=True):
        try:
            value = float(size) * (mm_of(unit) or math.nan)
        except ValueError:
            value = math.nan
        found.append(value)
    depth = dict(zip(file.series[0].axes, file.series[0].shape, strict=True)).get("Z", 1)
    if depth == 1 and math.isnan(found[2]):
        found[2] = 1.0
    x, y, z = found
    return (x, y, z) if all(math.isfinite(one) and one > 0 for one in found) else None


def _check_tiff(series: Any, path: Path) -> None:
    """Check what tifffile accepts without an error: strips that are missing (it adds zeros)."""
    packed = any(page.compression != 1 for page in series.pages if page is not None)
    refuse_large(series.nbytes, path.stat().st_size if packed else None)
    bits = series.keyframe.bitspersample  # of every page; frames do not repeat it
    for page in series.pages:
        if page is None or page.chunked is None:
            raise FormatError("a page of it is missing")
        counts = page.databytecounts
        stored, expected = sum(counts), page.nbytes
        if min(counts, default=0) < 1 or len(counts) < math.prod(page.chunked):
            raise FormatError(
                f"truncated: it has {len(counts)} of {math.prod(page.chunked)} strips"
            )
        # tifffile counts a pixel of fewer bits as a byte.
        if page.compression == 1 and bits >= 8 and stored < expected:
            raise FormatError(f"truncated: it has {stored} of {expected} bytes of pixels")


def _turned(array: NDArray[Any], axes: str, orientation: int) -> NDArray[Any]:
    """The pixels with the first row at the top and the first column on the left.

    Args:
        orientation: 1 to 8, where row 0 and column 0 of the file are (TIFF 6.0).
    """
    rows, columns = axes.index("Y"), axes.index("X")
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(rows, columns)
    if orientation in (3, 4, 7, 8):
        array = np.flip(array, rows)
    if orientation in (2, 3, 6, 7):
        array = np.flip(array, columns)
    return array


def _tiff_roles(axes: str, shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """Find the colour axes and the page axes.

    Samples ("S") are colours. A channel axis ("C") counts as colours if it has 2 to 4 entries, else
    as pages.
    """
    samples = [
        a for a, name in enumerate(axes) if name in "SC" and (name == "S" or shape[a] in (2, 3, 4))
    ]
    pages = [
        a for a, name in enumerate(axes) if a not in samples and name not in "YX" and shape[a] > 1
    ]
    return samples, pages


def _tiff_channels(array: NDArray[Any]) -> _Picture:
    """(C, I, J, K) without an opaque alpha channel, with the channel names; (I, J, K) if one
    channel remains.
    """
    if (
        len(array) in (2, 4)
        and array.dtype.kind == "u"
        and (array[-1] == np.iinfo(array.dtype).max).all()
    ):
        array = array[:-1]
    if len(array) == 1:
        return _Picture(array[0])
    return _Picture(np.ascontiguousarray(array), CHANNEL_NAMES.get(len(array), ()))


def _tiff_by_pillow(path: Path) -> tuple[NDArray[Any], str]:
    """Read all pages with Pillow, and name their axes."""
    from PIL import Image, ImageSequence

    with _unlimited(), opened(path) as file, Image.open(file) as image:
        _refuse_large(image, path)
        pages = [np.array(page) for page in ImageSequence.Iterator(image)]
    array = np.stack(pages)
    return array, "IYXS"[: array.ndim]


# ---- writing ----


def write_png(volume: Volume, path: str | Path, labels: LabelSet | None = None) -> None:
    """Write one slice as PNG, or as TIFF by its ending: uint8 or uint16 grey levels, or uint8
    colours. Position and spacing are lost; ``labels`` become a text of a PNG.

    Raises:
        OutputError: the volume has more than one slice, or values that PNG cannot store.
    """
    if volume.grid.shape[2] != 1:
        raise OutputError(
            f"a PNG or TIFF holds one slice, found {volume.grid.shape[2]}; give a folder (a "
            "name without extension) to write one picture per slice",
            path=path,
        )
    _save(_writable(volume, path)[..., 0], path, labels)


def write_slices(volume: Volume, folder: str | Path, labels: LabelSet | None = None) -> list[Path]:
    """Write one ``slice_0000.png`` per slice, in the order of k, each with the ``labels``.

    Raises:
        OutputError: the folder holds other files, which would be mixed with the slices.
    """
    return write_pictures(volume, folder, labels, ".png")


def write_pictures(
    volume: Volume, target: str | Path, labels: LabelSet | None, ending: str
) -> list[Path]:
    """Write one slice to a file of any ending, or all slices to a folder with this ``ending``:
    ".png" or ".tif". Errors as for ``write_png`` and ``write_slices``.
    """
    if "." in Path(target).name:
        write_png(volume, target, labels)
        return [Path(target)]
    array = _writable(volume, target)
    names = [f"slice_{k:04d}{ending}" for k in range(array.shape[-1])]
    folder = make_folder(target)
    refuse_others(folder, names)
    for k, name in enumerate(names):
        _save(array[..., k], folder / name, labels)
    return [folder / name for name in names]


def _writable(volume: Volume, path: str | Path) -> NDArray[Any]:
    """Convert the array to a dtype that PNG can store.

    Raises:
        OutputError: no such dtype holds the values.
    """
    array = smallest_labels(volume) if volume.unit == "label" else volume.array
    if array.dtype == bool:
        array = array.astype(np.uint8)
    # PNG has no signed type: signed values from 0 to 65535 become unsigned.
    if array.dtype.kind == "i" and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.min_scalar_type(int(array.max())))
    grey, colour = (
        array.ndim == 3 and array.dtype in (np.uint8, np.uint16),
        array.ndim == 4 and array.dtype == np.uint8 and len(array) in (3, 4),
    )
    if not grey and not colour:
        raise OutputError(
            f"PNG stores whole numbers from 0 to 65535, or 8-bit RGB; found {array.dtype} in "
            f"{volume.channels} channel(s); state a window (convert --window -200,200), use "
            "export-slices, which keeps values and geometry, or write NIfTI",
            path=path,
        )
    return array


def save(pixels: NDArray[Any], path: str | Path) -> None:
    """Write pixels (columns, rows), or colours (3, columns, rows), as they are: uint8 or uint16 as
    PNG or TIFF, by the ending of the name.
    """
    _save(pixels, path, None)


def _save(pixels: NDArray[Any], path: str | Path, labels: LabelSet | None) -> None:
    """Write pixels (I, J) or (C, I, J) to a file: PNG by the ending of its name, else TIFF, which
    keeps no ``labels``.
    """
    if not str(path).lower().endswith(".png"):
        import tifffile

        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        with replacing(path) as temporary:
            tifffile.imwrite(temporary, np.ascontiguousarray(pixels.T), photometric=photometric)
        return
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if labels:
        text.add_itxt(LABELS_KEY, labels_as_text(labels))
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels.transpose(*range(pixels.ndim)[::-1]))).save(
            temporary, format="PNG", pnginfo=text, compress_level=PNG_LEVEL
        )

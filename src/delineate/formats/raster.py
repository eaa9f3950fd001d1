"""PNG, JPEG and TIFF: 2-D pictures, stacks of them, multi-page TIFF. Colour becomes channels.

Axes: i is the column (to the right in the picture), j the row (downwards), k the page. Pictures
carry no place: the grid is given the radiological reading, i to the patient's left and j to the
back (codes "LPS"), so its affine is diag(-sx, -sy, sz). Without a stated spacing it is 1 mm and
``meta["spacing_known"]`` is False: resolution tags speak of screens and paper, so they are not
used. A mask keeps its values (0/255 stays 0/255); colours are never collapsed; an alpha channel
that is opaque everywhere is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import make_folder, replacing
from ..core.errors import FormatError, GeometryError, OutputError
from ..core.grid import Grid
from ..core.volume import Volume
from .disk import natural_key, smallest_labels, told

CHANNEL_NAMES = {
    1: (),
    2: ("grey", "alpha"),
    3: ("red", "green", "blue"),
    4: ("red", "green", "blue", "alpha"),
}
TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
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
    """ "PNG", "JPEG", "TIFF" or ""."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "TIFF" if head.startswith(TIFF_MAGICS) else ""


def grid_of(shape: Sequence[int], spacing_mm: Sequence[float] | None) -> Grid:
    """The grid of a picture or stack of (I, J, K) voxels; two values of spacing are those of a
    single slice.

    Raises:
        GeometryError: not two or three positive values, or two for a stack.
    """
    values = [float(v) for v in spacing_mm or (1.0, 1.0, 1.0)]
    values = [*values, 1.0] if len(values) == 2 and shape[2] == 1 else values
    if len(values) != 3 or not np.isfinite(values).all() or min(values) <= 0:
        raise GeometryError(
            f"a spacing is three positive values in mm (column, row, slice), found {values}"
        )
    return Grid((shape[0], shape[1], shape[2]), np.diag([-values[0], -values[1], values[2], 1.0]))


def read(path: str | Path, kind: str, spacing_mm: Sequence[float] | None = None) -> Volume:
    """The picture (I, J, 1), the colours (C, I, J, 1), or a multi-page TIFF (I, J, K); unit "a.u.".

    Raises:
        FormatError: damaged, or pixels that cannot be kept without loss.
        GeometryError: a multi-page TIFF without a stated spacing is read with 1 mm; an impossible
            spacing is refused.
    """
    with told(path, f"{kind} file"):
        array, names = _tiff(Path(path)) if kind == "TIFF" else _picture(Path(path), kind)
        meta: dict[str, Any] = {
            "modality": "",
            "patient": "",
            "spacing_known": spacing_mm is not None,
            "place_known": False,
        }
        if names:
            meta["channels"] = list(names)
        return Volume(array, grid_of(array.shape[-3:], spacing_mm), source=str(path), meta=meta)


def size_of(path: str | Path, kind: str) -> tuple[int, int, int]:
    """(I, J, K) from the header."""
    with told(path, f"{kind} file"):
        if kind == "TIFF":
            i, j, k = _tiff(Path(path))[0].shape[-3:]
            return int(i), int(j), int(k)
        from PIL import Image

        with Image.open(path) as picture:
            return picture.width, picture.height, 1


def read_stack(files: Sequence[Path], spacing_mm: Sequence[float] | None, source: str) -> Volume:
    """Pictures of one size as the slices of a volume, in the order given: (I, J, K) or (C, I, J,
    K).

    Raises:
        GeometryError: sizes differ.
        FormatError: grey and colour are mixed.
    """
    first = read(files[0], kind_of(_head(files[0])))
    shape = first.channels_array.shape
    stack = np.empty((*shape[:3], len(files)), first.array.dtype)
    for k, path in enumerate(files):
        one = read(path, kind_of(_head(path)))
        if one.grid.shape != first.grid.shape or one.grid.shape[2] != 1:
            sizes = f"{one.grid.shape[:2]} beside {first.grid.shape[:2]} in {files[0].name}"
            raise GeometryError(f"slices of a stack have one size, found {sizes}", path=path)
        if one.channels != first.channels or one.array.dtype != first.array.dtype:
            raise FormatError(
                f"slices of a stack are alike, found {one.channels} channel(s) of "
                f"{one.array.dtype} beside {first.channels} of "
                f"{first.array.dtype} in {files[0].name}",
                path=path,
            )
        stack[..., k] = one.channels_array[..., 0]
    meta = {**first.meta, "spacing_known": spacing_mm is not None}
    array = stack if first.array.ndim == 4 else stack[0]
    return Volume(array, grid_of(array.shape[-3:], spacing_mm), source=source, meta=meta)


def _head(path: Path) -> bytes:
    with told(path), path.open("rb") as file:
        return file.read(16)


def _picture(path: Path, kind: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    from PIL import Image

    if kind == "PNG":
        depth, colour = _png_depth(path)
        if depth == 16 and colour in (2, 4, 6):
            raise FormatError(
                "16-bit colour PNG is refused, as half of its bits would be lost; allowed are "
                "8-bit colour and grey of up to 16 bits"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            return _pixels(picture)


def _pixels(picture: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
    if picture.mode not in MODES:
        raise FormatError(
            f"pixels of kind {picture.mode} are refused; allowed are grey, palette, RGB and RGBA"
        )
    mode = MODES[picture.mode]
    if picture.mode == "P" and "transparency" in picture.info:
        mode = "RGBA"
    array = np.array(picture if mode == picture.mode else picture.convert(mode))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _oriented(array.astype(np.uint8) if array.dtype == bool else array)


def _oriented(array: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(rows, columns[, samples]) to (I, J, 1) or (C, I, J, 1), with the channels' names."""
    if array.ndim == 2:
        return np.ascontiguousarray(array.T)[..., None], ()
    if array.shape[2] in (2, 4) and (array[..., -1] == np.iinfo(array.dtype).max).all():
        array = array[..., :-1]
    channels = np.ascontiguousarray(array.transpose(2, 1, 0))[..., None]
    return (channels[0], ()) if len(channels) == 1 else (channels, CHANNEL_NAMES[len(channels)])


def _png_depth(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26:
        raise FormatError("truncated: the PNG header ends early")
    return head[24], head[25]


def _tiff(path: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(I, J, K) or (C, I, J, K) of the first image series; pages become k."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise FormatError(
                f"a TIFF with {len(file.series)} images of different shapes; allowed is one "
                "image or pages of one size"
            )
        series = file.series[0]
        axes, shape = series.axes, series.shape
        try:
            array = series.asarray()
        except ValueError:  # a compression tifffile has no codec for here; Pillow has its own
            array, axes, shape = _tiff_by_pillow(path)
    samples = [
        a for a, name in enumerate(axes) if name in "SC" and (name == "S" or shape[a] in (2, 3, 4))
    ]
    pages = [
        a for a, name in enumerate(axes) if a not in samples and name not in "YX" and shape[a] > 1
    ]
    if len(samples) > 1 or len(pages) > 1 or array.dtype.kind not in "biuf":
        raise FormatError(
            f"a TIFF with axes {axes} of shape {shape} and {array.dtype}; allowed: rows, "
            "columns, one axis of pages, one of colours"
        )
    order = [*samples, axes.index("X"), axes.index("Y"), *pages]
    rest = [a for a in range(len(axes)) if a not in order]
    array = array.transpose(*rest, *order).reshape([shape[a] for a in order])
    array = array if pages else array[..., None]
    array = (
        array.astype(np.uint8)
        if array.dtype == bool
        else array.astype(array.dtype.newbyteorder("="))
    )
    if not samples:
        return np.ascontiguousarray(array), ()
    if (
        len(array) in (2, 4)
        and array.dtype.kind == "u"
        and (array[-1] == np.iinfo(array.dtype).max).all()
    ):
        array = array[:-1]
    return (
        (array[0], ())
        if len(array) == 1
        else (np.ascontiguousarray(array), CHANNEL_NAMES.get(len(array), ()))
    )


def _tiff_by_pillow(path: Path) -> tuple[NDArray[Any], str, tuple[int, ...]]:
    from PIL import Image, ImageSequence

    with Image.open(path) as picture:
        pages = [np.array(page) for page in ImageSequence.Iterator(picture)]
    array = np.stack(pages)
    return array, "IYXS"[: array.ndim], array.shape


# ---- writing ----


def write_png(volume: Volume, path: str | Path) -> None:
    """One slice as PNG: uint8 or uint16 grey, or uint8 colours; place and spacing are lost, as PNG
    has none.

    Raises:
        OutputError: more than one slice, or values PNG cannot hold.
    """
    if volume.grid.shape[2] != 1:
        raise OutputError(
            f"a PNG holds one slice, found {volume.grid.shape[2]}; name a folder (no ending) to "
            "write one PNG a slice",
            path=path,
        )
    _save(_writable(volume, path)[..., 0], path)


def write_slices(volume: Volume, folder: str | Path) -> list[Path]:
    """One ``slice_0000.png`` a slice, k upwards.

    Raises:
        OutputError: the folder holds other files, which would mix with the slices.
    """
    array = _writable(volume, folder)
    names = [f"slice_{k:04d}.png" for k in range(array.shape[-1])]
    target = make_folder(folder)
    others = sorted((p.name for p in target.iterdir() if p.name not in names), key=natural_key)
    if others:
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        raise OutputError(
            f"the folder holds other files ({shown}), slices go into an empty one", path=folder
        )
    for k, name in enumerate(names):
        _save(array[..., k], target / name)
    return [target / name for name in names]


def _writable(volume: Volume, path: str | Path) -> NDArray[Any]:
    array = smallest_labels(volume) if volume.unit == "label" else volume.array
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "i" and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.min_scalar_type(int(array.max())))
    grey, colour = (
        array.ndim == 3 and array.dtype in (np.uint8, np.uint16),
        array.ndim == 4 and array.dtype == np.uint8 and len(array) in (3, 4),
    )
    if not grey and not colour:
        raise OutputError(
            f"PNG holds whole numbers from 0 to 65535, or 8-bit RGB; found {array.dtype} in "
            f"{volume.channels} channel(s); write NIfTI instead",
            path=path,
        )
    return array


def _save(pixels: NDArray[Any], path: str | Path) -> None:
    """(I, J) or (C, I, J) to a file."""
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels.transpose(*range(pixels.ndim)[::-1]))).save(
            temporary, format="PNG"
        )

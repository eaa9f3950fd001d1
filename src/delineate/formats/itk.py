"""Images of SimpleITK; writing MetaImage with it. Headers that name data files.

ITK's LPS becomes RAS+ here. Vector pixels and a fourth axis become channels. A detached NRRD header
or an .mhd finds its data file in the same folder. ``formats.metaimage`` reads MetaImage.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing, write_bytes
from ..core.errors import FormatError, OutputError
from ..core.grid import Grid
from ..core.inputs import refuse_special
from ..core.labels import LabelSet
from ..core.volume import Volume
from ..extras import require_extra
from .disk import smallest_labels

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
MODALITIES = {
    **{name: name for name in ("CT", "MR", "NM", "US", "PT")},
    **{"PET": "PT", "MRI": "MR", "OTHER": "", "UNKNOWN": "", "": ""},
}
MOST_OF_HEADER = 1 << 20  # bytes; lists of slices are long
_ESCAPED = re.compile(r"\\u\{([0-9a-f]{1,5})\}")
_IMAGE = re.compile(rb"ObjectType[ \t]*=[ \t]*Image\b")
MOST_FILES = 1 << 16  # with the slices of one volume
MOST_OF_NAME = 4096  # characters of a field that ITK reads again
_PATTERN = re.compile(r"[^%]*%0?\d{0,2}[diu][^%]*")  # of the names of numbered files
_WHOLE = re.compile(r"[+-]?\d{1,9}")
_SIZES = re.compile(r"(?m)^[ \t]*DimSize[ \t]*=.*?(\d{1,9})[ \t]*\r?$")
_DATA_FILE = re.compile(
    r"(?im)^[ \t]*(?:ElementDataFile[ \t]*=|data ?file[ \t]*:)[ \t]*(.+?)[ \t]*\r?$"
)


def _simpleitk() -> Any:
    """Import SimpleITK on first use; its functions have no types."""
    require_extra("itk", "writing MetaImage, or an image of SimpleITK,")
    import SimpleITK

    return SimpleITK


def kind_of(head: bytes) -> str:
    """Return the format from a file's first bytes: "NRRD", "MetaImage" or "" (neither)."""
    if head.startswith(b"NRRD000"):
        return "NRRD"
    # MetaImage has no magic number: the header is text that starts with one of a few keys.
    first = head[:2048].lstrip()
    # The size follows after the fields of other programs, perhaps beyond the head.
    is_meta = b"NDims" in first and (
        _IMAGE.match(first) is not None
        or (first.startswith((b"ObjectType", b"NDims", b"Comment")) and b"DimSize" in head)
    )
    return "MetaImage" if is_meta else ""


def from_image(image: Any, source: str = "") -> Volume:
    """The volume of a SimpleITK image; unit "a.u.", modality as it states, else "".

    Args:
        image: two or three spatial axes, and channels as components or as a fourth axis.

    Raises:
        FormatError: complex values, or more than four axes.
        GeometryError: impossible directions.
    """
    sitk = _simpleitk()
    components, dimension = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
    array = sitk.GetArrayFromImage(image)  # (..., z, y, x[, component])
    if array.dtype.kind not in "biuf" or dimension > 4 or (dimension == 4 and components > 1):
        raise FormatError(
            f"{dimension} axes with {components} components of {array.dtype}; allowed: three "
            "spatial axes and one of channels"
        )
    # Components (last axis) or the fourth dimension (first axis) become the channel axis.
    channels = (
        np.moveaxis(array, -1, 0) if components > 1 else array if dimension == 4 else array[None]
    )
    # SimpleITK arrays are (z, y, x): reverse the spatial axes.
    channels = channels.transpose(0, *range(channels.ndim - 1, 0, -1))  # (C, x, y[, z])
    channels = channels[..., None] if channels.ndim == 3 else channels
    keys = image.GetMetaDataKeys()
    modality = modality_of(image.GetMetaData("Modality")) if "Modality" in keys else ""
    meta: dict[str, Any] = {"modality": modality or "", "patient": "", "spacing_known": True}
    # Names and colours of segments, as other viewers write them, are kept as they are.
    if names := segment_fields({key: image.GetMetaData(key) for key in keys}):
        meta["segments"] = names
    return Volume(
        channels[0] if len(channels) == 1 else channels,
        _grid(image, dimension),
        source=source,
        meta=meta,
    )


def modality_of(word: str) -> str | None:
    """The modality of MetaImage's word, such as ``MET_MOD_CT``: "" if it states none; None if it is
    not known.

    >>> modality_of("MET_MOD_MR"), modality_of("MET_MOD_OTHER"), modality_of("slow")
    ('MR', '', None)
    """
    return MODALITIES.get(word.strip().upper().removeprefix("MET_MOD_"))


def segment_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of segments, such as ``Segment0_Name``; see ``_ascii``."""
    return {
        key: _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
        for key, value in fields.items()
        if key.startswith("Segment")
    }


def _ascii(text: str) -> str:
    """The text with other characters as ``\\u{hexadecimal}``: MetaImage headers are ASCII."""
    return "".join(c if " " <= c <= "~" and c != "\\" else f"\\u{{{ord(c):x}}}" for c in text)


def data_files(path: Path) -> list[Path]:
    """List the data files that a header names: one, a list, or a numbered pattern.

    [] if the voxels are in the file itself, or if the header cannot be understood.
    """
    refuse_special(path)
    with path.open("rb") as file:
        text = file.read(MOST_OF_HEADER).decode("latin-1")
    found = _DATA_FILE.search(text)
    if found is None or found[1].upper() == "LOCAL":
        return []
    # MetaImage has three forms: LIST with one name per line, a printf pattern with first, last and
    # step, or a plain name. What a pattern does not state is one file for each slice, from 1 on.
    words = found[1].split()
    if words[0].upper() == "LIST":
        names = [line.strip() for line in text[found.end() :].splitlines() if line.strip()]
    elif _PATTERN.fullmatch(words[0]) and all(_WHOLE.fullmatch(word) for word in words[1:]):
        first = int(words[1]) if len(words) > 1 else 1
        last = int(words[2]) if len(words) > 2 else first + _slices(text) - 1
        step = (int(words[3]) if len(words) > 3 else 1) or 1
        numbers = range(first, last + (1 if step > 0 else -1), step)
        if len(numbers) > MOST_FILES:
            raise FormatError(f"{len(numbers)} data files; allowed are {MOST_FILES}", path=path)
        names = [words[0] % number for number in numbers]
    else:
        names = [found[1]]
    return [path.parent / name for name in names]


def _slices(header: str) -> int:
    """The size of the slowest axis of a MetaImage header."""
    found = _SIZES.search(header)
    return int(found[1]) if found else 1


def shape_of_one(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape of the voxels in each of ``count`` files that divide the slowest axes between them.

    Raises:
        FormatError: they cannot.

    >>> shape_of_one((5, 4, 6), 2), shape_of_one((5, 4, 6, 2), 12)
    ((5, 4, 3), (5, 4, 1))
    """
    rest, left = shape, count
    while rest and left > rest[-1] and left % rest[-1] == 0:
        rest, left = rest[:-1], left // rest[-1]
    if not rest or rest[-1] % left:
        raise FormatError(f"{count} data files cannot share {shape[-1]} slices")
    return (*rest[:-1], rest[-1] // left)


def joined(parts: list[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    """The voxels of several files (``shape_of_one``), the slowest axis last."""
    if len(parts) == 1:
        return parts[0].reshape(shape, order="F")
    return np.concatenate([part.ravel(order="F") for part in parts]).reshape(shape, order="F")


def _grid(image: Any, dimension: int) -> Grid:
    """Convert ITK's origin, spacing and directions (LPS) into a grid (RAS+)."""
    space = min(dimension, 3)
    # A 2-D image becomes one slice, with the third axis along z; a fourth axis is channels and has
    # no geometry.
    shape = [*map(int, image.GetSize()[:space]), 1, 1][:3]
    matrix = np.eye(3)
    directions = np.array(image.GetDirection(), float).reshape(dimension, dimension)[:space, :space]
    matrix[:space, :space] = directions * np.array(image.GetSpacing()[:space])
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ matrix
    affine[:space, 3] = image.GetOrigin()[:space]
    affine[:3, 3] = LPS_TO_RAS @ affine[:3, 3]
    return Grid((shape[0], shape[1], shape[2]), affine, allow_shear=True)


# ---- writing ----


def write(volume: Volume, path: str | Path, labels: LabelSet | None = None) -> None:
    """Write .mha, compressed, or .mhd with a .raw next to it.

    Value and name of ``labels`` become fields of the header, named as in NRRD (``Segment0_Name``
    ...).

    Raises:
        OutputError: a name is longer than ``MOST_OF_NAME``.
    """
    target, sitk = Path(path), _simpleitk()
    image = to_image(volume)
    for n, label in enumerate(labels or ()):
        if len(name := _ascii(label.name)) > MOST_OF_NAME:
            raise OutputError(
                f"MetaImage stores names of at most {MOST_OF_NAME} characters, found {len(name)}",
                path=path,
            )
        image.SetMetaData(f"Segment{n}_Name", name)
        image.SetMetaData(f"Segment{n}_LabelValue", str(label.value))
    if target.suffix.lower() == ".mhd":
        _write_pair(image, target)
        return
    # SimpleITK raises RuntimeError where it cannot write.
    with replacing(target, RuntimeError) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)


def to_image(volume: Volume) -> Any:
    """The volume as a SimpleITK image (LPS); channels become vector components."""
    sitk = _simpleitk()
    array = smallest_labels(volume) if volume.unit == "label" else volume.array
    # ITK has no boolean and no half-precision pixels.
    array = array.astype(
        {"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype), copy=False
    )
    # SimpleITK expects (z, y, x[, component]).
    zyx: NDArray[Any] = (
        np.moveaxis(array, 0, -1).transpose(2, 1, 0, 3)
        if array.ndim == 4
        else array.transpose(2, 1, 0)
    )
    image = sitk.GetImageFromArray(np.ascontiguousarray(zyx), isVector=array.ndim == 4)
    affine = volume.grid.affine
    image.SetSpacing(volume.grid.spacing_mm)
    image.SetOrigin((LPS_TO_RAS @ affine[:3, 3]).tolist())
    image.SetDirection(
        (LPS_TO_RAS @ affine[:3, :3] / np.array(volume.grid.spacing_mm)).ravel().tolist()
    )
    return image


def _write_pair(image: Any, target: Path) -> None:
    """Write .mhd and .raw. The header names its data file, so both are first written to a temporary
    folder under their final names and then put in place, the data first.
    """
    sitk = _simpleitk()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        sitk.WriteImage(image, str(made), useCompression=False)
        write_bytes(target.with_suffix(".raw"), made.with_suffix(".raw").read_bytes())
        write_bytes(target, made.read_bytes())

"""Images that may show text: which they are, and the areas that are made black.

Nothing looks for letters in pixels. An image counts as one with text if its header says so, or if
its kind usually has it; its areas are black by a rule: outside the regions that an ultrasound image
states, and inside rectangles that the user gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import FormatError
from ..header.file import SECONDARY_CAPTURE
from ..values.read import unused_bits

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right, bottom excluded

# Ultrasound, other, endoscopy and photographs, scanned pages and films.
_MODALITIES = ("US", "IVUS", "OT", "ES", "XC", "GM", "DG", "DOC", "HC", "SC")
# Words of ImageType in pages that a scanner draws.
_PAGES = ("SCREEN", "SCREENSAVE", "REPORT", "PROTOCOL", "DOSE", "SNAPSHOT")


def text_in(dataset: Any) -> str:
    """Why an image may show text; "" if nothing says so, and for objects without pixels."""
    if "PixelData" not in dataset and not dataset.get("Rows"):
        return ""
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        return "BurnedInAnnotation is YES"
    if str(dataset.get("SOPClassUID") or "").startswith(SECONDARY_CAPTURE):
        return "it is a secondary capture"
    modality = str(dataset.get("Modality") or "").strip()
    if modality in _MODALITIES:
        return f"its modality is {modality}"
    kind = dataset.get("ImageType") or ()
    words = " ".join((kind,) if isinstance(kind, str) else map(str, kind)).upper()
    page = next((one for one in _PAGES if one in words.replace("_", " ").split()), "")
    if page:
        return f"ImageType has {page}"
    return "an overlay is stored within its pixels" if _has_overlay(dataset) else ""


def blacken(dataset: Any, rectangles: Sequence[Rectangle]) -> None:
    """Make the areas with text black, and state that none is left.

    Raises:
        FormatError: no rule says where the text is, or the pixels are compressed or of another
            kind than whole samples.
    """
    if _has_overlay(dataset):
        _without_unused_bits(dataset)
    shape = int(dataset.Rows), int(dataset.Columns)
    dark = np.zeros(shape, bool)
    regions = dataset.get("SequenceOfUltrasoundRegions") or ()
    if regions:
        dark[:] = True
        for one in regions:
            top, left = int(one.RegionLocationMinY0), int(one.RegionLocationMinX0)
            bottom, right = int(one.RegionLocationMaxY1), int(one.RegionLocationMaxX1)
            dark[top : bottom + 1, left : right + 1] = False
    for left, top, right, bottom in rectangles:
        dark[top:bottom, left:right] = True
    if dark.any():
        _fill(dataset, dark)
    elif not regions and not _has_overlay(dataset):
        raise FormatError(
            "nothing says where its text is; --blacken LEFT,TOP,RIGHT,BOTTOM makes an area black"
        )
    dataset.BurnedInAnnotation = "NO"


def _fill(dataset: Any, dark: NDArray[np.bool_]) -> None:
    """Set the pixels of every frame to black."""
    samples, bits = int(dataset.get("SamplesPerPixel", 1)), int(dataset.BitsAllocated)
    colours = str(dataset.get("PhotometricInterpretation") or "")
    black = {"YBR_FULL": (0, 128, 128), "RGB": (0, 0, 0)}.get(colours, (0,) * samples)
    if colours == "MONOCHROME1":
        is_signed = bool(dataset.get("PixelRepresentation"))
        black = ((1 << (int(dataset.BitsStored) - is_signed)) - 1,)
    frames = int(dataset.get("NumberOfFrames") or 1)
    raw = _samples(dataset)
    if raw is None or len(black) != samples or raw.size < frames * dark.size * samples:
        raise FormatError(
            f"its pixels ({colours}, {bits} bits) cannot be made black as they are stored"
        )
    used = raw[: frames * dark.size * samples]
    if int(dataset.get("PlanarConfiguration") or 0) and samples > 1:
        planes = used.reshape(frames, samples, *dark.shape)
        for n, value in enumerate(black):
            planes[:, n, dark] = value
    else:
        used.reshape(frames, *dark.shape, samples)[:, dark] = black
    dataset.PixelData = raw.tobytes()


def _samples(dataset: Any) -> NDArray[Any] | None:
    """A copy of the samples as stored; None if they are compressed or no whole bytes."""
    syntax, bits = dataset.file_meta.TransferSyntaxUID, int(dataset.BitsAllocated)
    if syntax.is_encapsulated or bits not in (8, 16, 32) or "PixelData" not in dataset:
        return None
    order = "<" if syntax.is_little_endian else ">"
    content = bytes(dataset.PixelData)
    whole = len(content) - len(content) % (bits // 8)
    return np.frombuffer(content[:whole], f"{order}u{bits // 8}").copy()


def _has_overlay(dataset: Any) -> bool:
    """Whether an overlay is stored in bits of the pixels (retired, PS3.3 C.9.2)."""
    groups = {tag >> 16 for tag in map(int, dataset.keys()) if 0x6000 <= tag >> 16 < 0x6100}
    return any(
        (group << 16) + 0x0010 in dataset and (group << 16) + 0x3000 not in dataset
        for group in groups
    )


def _without_unused_bits(dataset: Any) -> None:
    """Set the bits of the pixels that are not part of their values to 0."""
    raw = _samples(dataset)
    if raw is None:
        raise FormatError("an overlay within compressed pixels cannot be removed")
    _, below = unused_bits(dataset)
    raw &= ((1 << int(dataset.BitsStored)) - 1) << below
    dataset.PixelData = raw.tobytes()

"""Intensities and label values as the pixels of pictures, and back.

Whole numbers whose range fits are shifted, and are the same again after reading. All other
intensities are scaled linearly, which rounds them, and a window clips them; ``Scale.loss`` measures
by how much. Label values are exact in every kind of mask. This module knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...core.errors import LabelError
from ...core.labels import IGNORED, LabelSet, unique_values
from ...core.volume import with_finite_voxels

Window = tuple[float, float]
Code = int | tuple[int, int, int]
MASKS = ("index", "grey", "colour")
# Offsets that scans share: the first one that fits is used, so that one pixel value means the same
# in all scans of a cohort. CT often begins at -1024.
_OFFSETS = (0, -1024, -2048, -4096, -8192, -32768)
_WHITE = (255, 255, 255)
_INT64_LIMIT = 2.0**53  # whole numbers beyond it are not exact as float


@dataclass(frozen=True)
class Scale:
    """The intensity of a pixel is ``low`` + pixel x ``step``, rounded if ``whole``, with ``dtype``.

    ``bits`` is 8, 16, or 0 for values that are stored as they are.
    """

    low: float
    step: float
    bits: int
    dtype: str
    whole: bool

    @classmethod
    def of(cls, array: NDArray[Any], bits: int, window: Window | None = None) -> Self:
        """The scale for one channel (I, J, K): that of ``window``, or the whole range.

        >>> scale = Scale.of(np.array([[[-1000, 40, 3000]]], np.int16), 16)
        >>> scale.low, scale.step, scale.to_pixels(np.array([[[40]]]))
        (-1024, 1.0, array([[[1064]]], dtype=uint16))
        """
        array = with_finite_voxels(array)
        low, high, dtype = float(array.min()), float(array.max()), array.dtype.name
        whole = max(-low, high) < _INT64_LIMIT and bool((array == np.rint(array)).all())
        if not bits:
            return cls(0, 1.0, 0, dtype, whole)
        top = 2**bits - 1
        if window is None and whole:
            offset = next((o for o in (*_OFFSETS, low) if o <= low and high - o <= top), None)
            if offset is not None:
                return cls(offset, 1.0, bits, dtype, True)
        low, high = window or (low, high)
        return cls(low, (high - low) / top if high > low else 1.0, bits, dtype, whole)

    def to_pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """The pixels of intensities of any shape; those outside the window become its ends."""
        if not self.bits:
            return array
        levels = np.rint((with_finite_voxels(array).astype(np.float64) - self.low) / self.step)
        return np.clip(levels, 0, 2**self.bits - 1).astype(f"uint{self.bits}")

    def to_values(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The intensities of pixels of any shape."""
        if not self.bits:
            return pixels.astype(self.dtype, copy=False)
        values = pixels.astype(np.float64) * self.step + self.low
        return (np.rint(values) if self.whole else values).astype(self.dtype)

    def loss(self, array: NDArray[Any], pixels: NDArray[Any]) -> tuple[float, float]:
        """What is lost: the largest change of an intensity inside the window, and the share of the
        voxels outside it. Both are 0 if every voxel is the same again.
        """
        values = self.to_values(pixels)
        if np.array_equal(values, array, equal_nan=array.dtype.kind == "f"):
            return 0.0, 0.0
        top = self.low + self.step * (2**self.bits - 1)
        with np.errstate(invalid="ignore"):
            inside = (array >= self.low - self.step / 2) & (array <= top + self.step / 2)
        change = np.abs(values[inside].astype(np.float64) - array[inside])
        return float(change.max(initial=0.0)), float(1 - inside.mean())

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class MaskCodes:
    """How a mask shows label values: ``kind`` of ``MASKS`` and label value -> pixel."""

    kind: str
    table: Mapping[int, Code]

    @classmethod
    def of(cls, labels: LabelSet, kind: str, ignoring: bool) -> Self:
        """The codes of a cohort's structures, and of ignored voxels if there are such.

        Of "grey" masks the values are spread evenly up to white; of "colour" masks they are the
        colours of the structures.

        >>> labels = LabelSet.from_names({1: "liver", 2: "spleen", 5: "kidney"})
        >>> MaskCodes.of(labels, "grey", False).table
        {0: 0, 1: 85, 2: 170, 5: 255}
        """
        values = labels.values
        known: dict[int, Code]
        if kind == "index":
            known = {value: value for value in values}
            if ignoring:
                known[IGNORED] = 255 if max(values, default=0) < 255 else IGNORED
        elif kind == "grey":
            shown = [*values, IGNORED] if ignoring else values
            top = 255 if len(shown) < 256 else 65535
            known = {v: round(top * n / len(shown)) for n, v in enumerate(shown, start=1)}
        else:
            known = {}
            for label in labels:
                known[label.value] = _unused(label.colour, {*known.values(), (0, 0, 0), _WHITE})
            known |= {IGNORED: _WHITE} if ignoring else {}
        black: Code = (0, 0, 0) if kind == "colour" else 0
        return cls(kind, {0: black, **known})

    @property
    def ignored(self) -> int | None:
        """The pixel of ignored voxels (of colours 0xRRGGBB); None if there are none."""
        code = self.table.get(IGNORED)
        return _as_number(code) if code is not None else None

    def to_pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Label values of any shape as pixels of the same shape; colours as (3, ...)."""
        highest = max(map(_as_number, self.table.values()))
        by_value = np.zeros(max(self.table) + 1, np.uint32)
        for value, code in self.table.items():
            by_value[value] = _as_number(code)
        pixels: NDArray[Any] = by_value[array]
        if self.kind == "colour":
            return np.stack([(pixels >> shift) & 255 for shift in (16, 8, 0)]).astype(np.uint8)
        return pixels.astype(np.uint8 if highest < 256 else np.uint16)

    def to_values(self, pixels: NDArray[Any], dtype: Any) -> NDArray[Any]:
        """The label values of pixels (I, J, K), or of colours (3, I, J, K).

        Raises:
            LabelError: pixels that are no code (listed).
        """
        if self.kind == "colour":
            coloured = pixels if pixels.ndim == 4 else np.stack([pixels] * 3)
            red, green, blue = (channel.astype(np.uint32) for channel in coloured)
            pixels = (red << 16) | (green << 8) | blue
        elif pixels.ndim == 4:
            if not all(np.array_equal(channel, pixels[0]) for channel in pixels[1:]):
                raise LabelError(f"the masks have colours, but {self.kind} masks are expected")
            pixels = pixels[0]
        values = {_as_number(code): value for value, code in self.table.items()}
        found = unique_values(pixels)
        if unknown := [code for code in found if code not in values]:
            raise LabelError(
                f"pixel values {_listed(unknown)} are no structures; known are "
                f"{_listed(sorted(values))}"
            )
        codes = np.array(found)
        return np.array([values[c] for c in found], dtype)[np.searchsorted(codes, pixels)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": [[v, c] for v, c in self.table.items()]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        pairs = ((v, tuple(c) if isinstance(c, list) else c) for v, c in data["table"])
        return cls(data["kind"], dict(pairs))


def _listed(codes: list[int]) -> str:
    return ", ".join(map(str, codes[:8])) + (" ..." if len(codes) > 8 else "")


def _as_number(code: Code) -> int:
    return code if isinstance(code, int) else (code[0] << 16) | (code[1] << 8) | code[2]


def _unused(colour: tuple[int, int, int], used: set[Any]) -> tuple[int, int, int]:
    """The colour, or the nearest number after it that is not used."""
    number = _as_number(colour)
    while (found := (number >> 16 & 255, number >> 8 & 255, number & 255)) in used:
        number += 1
    return found

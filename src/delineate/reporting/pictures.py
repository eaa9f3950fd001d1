"""Pictures of a scan with outlines: three planes of a volume, or source, truth and prediction of
some slices side by side.

Shown is the radiological convention: the patient's right is on the left of the picture, seen from
the feet in axial planes and from the front in coronal ones; sagittal planes look to the patient's
left with the front on the left side. Letters on every plane say where its edges point, its aspect
is that of the voxels in mm, and the window is stated. Oblique scans are shown along the axes
nearest to the anatomical ones. A plain 2-D picture, whose place in a patient is unknown, is shown
as it is stored and without letters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.errors import GeometryError
from ..core.labels import Label, LabelSet
from ..core.volume import Volume
from ..core.words import decimals
from ..metrics import overlap

SOFT_TISSUE_HU = (-160.0, 240.0)  # window 400 at level 40
PERCENTILES = (1.0, 99.0)
SAMPLE_VOXELS = 1 << 21  # of which the percentiles are taken: sorting a whole scan takes seconds
TITLE_INCHES = 0.24  # above each panel
YELLOW = (255, 255, 0)
RIGHT_ON_LEFT = "patient's right on the left"
FILL = 0.4  # opacity
STYLES = ("solid", "dashed", "dotted", "dashdot")
# i runs to the patient's left, j to the back, k upwards: the picture's right, down and up
_SHOWN_AS = "LPS"


@dataclass(frozen=True)
class Plane:
    """One plane through the volume as an image: rows run downwards."""

    name: str
    axis: int  # the voxel axis that is looked along
    edges: str  # letters of left, right, top, bottom; "" where unknown
    flip_rows: bool = False

    def cut(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """(rows, columns) of ``array`` (I, J, K) at ``index``; a view."""
        image: NDArray[Any] = array[(slice(None),) * self.axis + (index,)].T
        return image[::-1] if self.flip_rows else image

    def place(self, index: int, shape: Sequence[int]) -> str:
        """Which slice it is, in words; "" of a single one."""
        length = shape[self.axis]
        return f"{self.name or 'slice'} {index + 1} of {length}" if length > 1 else ""

    def aspect(self, spacing_mm: Sequence[float]) -> float:
        """Height of a pixel over its width."""
        across, down = [s for a, s in enumerate(spacing_mm) if a != self.axis]
        return down / across

    def extent_mm(self, cut: NDArray[Any], spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Width and height of ``cut`` in mm."""
        across, down = [s for a, s in enumerate(spacing_mm) if a != self.axis]
        return cut.shape[1] * across, cut.shape[0] * down


AXIAL = Plane("axial", 2, "RLAP")
CORONAL = Plane("coronal", 1, "RLSI", flip_rows=True)
SAGITTAL = Plane("sagittal", 0, "APSI", flip_rows=True)
AS_STORED = Plane("", 2, "")
PLANES = (SAGITTAL, CORONAL, AXIAL)  # by the axis that is looked along


def montage(
    image: Volume | None,
    masks: dict[str, Volume],
    labels: LabelSet,
    path: str | Path,
    window: tuple[float, float] | None = None,
    title: str = "",
    filled: bool = False,
) -> Path:
    """Write a PNG of the planes that show most of the first mask, with every mask's contours.

    Args:
        image: (I, J, K) or (C, I, J, K); the first channel is shown. None shows the masks alone, of
            which there must be one then.
        masks: name -> label map on the image's grid, drawn in this order as solid, dashed, dotted
            lines; where the first is empty the next one chooses the planes, and the middle is shown
            where all are.
        labels: whose colours are used; other values are not drawn.
        path: the PNG file.
        window: lowest and highest shown value; None is -160..240 HU for CT, else the 1st to 99th
            percentile.
        filled: fill the first mask's structures with their colour too, half transparent.

    Raises:
        GeometryError: a mask does not stand on the image's grid.
        OutputError: it cannot be written.
    """
    base = image if image is not None else next(iter(masks.values()))
    for name, mask in masks.items():
        check_place(base, name, mask)
    placed = is_placed(base)
    shown = base.reorient(_SHOWN_AS) if placed else base
    drawn = {
        name: (mask.reorient(_SHOWN_AS) if placed else mask).channels_array[0]
        for name, mask in masks.items()
    }
    array = shown.channels_array[0]
    planes = _planes(array.shape, placed)
    low_high, words = (
        ((0.0, 2.5), "masks alone") if image is None else _window(array, image.unit, window)
    )
    if image is None:
        array = np.isin(array, labels.values)
    indices = [
        _fullest(list(drawn.values()), labels, plane.axis, array.shape[plane.axis])
        for plane in planes
    ]
    with replacing(path) as temporary:
        _draw(
            array,
            drawn,
            labels,
            planes,
            indices,
            shown.grid.spacing_mm,
            low_high,
            (words, title),
            temporary,
            filled,
        )
    return Path(path)


def side_by_side(
    image: Volume | None,
    truth: Volume,
    prediction: Volume,
    labels: LabelSet,
    path: str | Path,
    *,
    title: str = "",
    slices: int = 3,
    window: tuple[float, float] | None = None,
) -> Path:
    """Write a PNG of source, truth and prediction side by side, a row a slice, with the Dice of
    each slice.

    Shown are slices along the axis by which the scan's are stacked, spread evenly over the
    structures' voxels (of truth and prediction), so that none is empty and the ends are not missed.
    A single structure is outlined in yellow, several in their colours.

    Args:
        image: (I, J, K) or (C, I, J, K), the first channel is shown; None shows the masks alone.
        truth, prediction: (I, J, K) label maps on the image's grid.
        labels: the structures; other values are not drawn.
        path: the PNG file.
        title: the line above, such as the case and its Dice.
        slices: most rows.
        window: as in ``montage``.

    Raises:
        GeometryError: a mask does not stand on the image's grid.
        OutputError: it cannot be written.
    """
    base = truth if image is None else image
    for name, mask in (("truth", truth), ("prediction", prediction)):
        check_place(base, name, mask)
    placed, axis = is_placed(base), base.grid.slice_axis
    if placed:
        axis = base.grid.reorient(_SHOWN_AS)[1].order.index(axis)
    shown, t, p = (v.reorient(_SHOWN_AS) if placed else v for v in (base, truth, prediction))
    true, predicted = t.channels_array[0], p.channels_array[0]
    plane = PLANES[axis] if placed else Plane("", axis, "")
    chosen = spread(_amounts(true, labels, axis) + _amounts(predicted, labels, axis), slices)
    array = None if image is None else shown.channels_array[0]
    low_high, words = (
        ((0.0, 2.5), "masks alone") if array is None else _window(array, base.unit, window)
    )
    rows = [
        _Row(
            plane.place(k, true.shape),
            None if array is None else plane.cut(array, k),
            plane.cut(true, k),
            plane.cut(predicted, k),
        )
        for k in chosen
    ]
    drawn = labels if len(labels) != 1 else LabelSet((replace(labels.labels[0], colour=YELLOW),))
    with replacing(path) as temporary:
        _draw_rows(rows, drawn, plane, shown.grid.spacing_mm, low_high, (title, words), temporary)
    return Path(path)


def check_place(image: Volume, name: str, mask: Volume) -> None:
    """Whether a mask called ``name`` stands where the image does; of plain pictures only the shapes
    are compared.

    Raises:
        GeometryError: it does not, with the distance.
    """
    both = is_placed(image) and is_placed(mask)
    same = image.grid.matches(mask.grid) if both else image.grid.shape == mask.grid.shape
    if not same:
        distance = image.grid.distance_mm(mask.grid)
        found = (
            f"shape {mask.grid.shape} against {image.grid.shape}"
            if np.isinf(distance)
            else f"{distance:.2f} mm away"
        )
        raise GeometryError(
            f"the {name} does not stand on the image's grid: {found}", path=mask.source or None
        )


def is_placed(volume: Volume) -> bool:
    """Whether its axes mean directions in a patient; those of plain pictures do not."""
    return bool(volume.meta.get("place_known", volume.meta.get("spacing_known", True)))


def _planes(shape: Sequence[int], placed: bool) -> list[Plane]:
    """All three planes of a volume, the stored one of pictures without a place; of a single slice
    the one that holds it.
    """
    if not placed:
        return [AS_STORED]
    thin = [p for p in (AXIAL, CORONAL, SAGITTAL) if shape[p.axis] == 1]
    return thin[:1] or [AXIAL, CORONAL, SAGITTAL]


def _window(
    array: NDArray[Any], unit: str, window: tuple[float, float] | None
) -> tuple[tuple[float, float], str]:
    if window is None and unit == "HU":
        window = SOFT_TISSUE_HU
    if window is not None:
        low, high = window
        return (low, high), f"window {low:g} to {high:g}{' HU' if unit == 'HU' else ''}"
    step = max(1, math.ceil((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = array[tuple(slice(None, None, step if n > step else 1) for n in array.shape)]
    finite = sample[np.isfinite(sample)] if array.dtype.kind == "f" else sample
    low, high = (
        (float(v) for v in np.percentile(finite, PERCENTILES)) if finite.size else (0.0, 1.0)
    )
    return (
        low,
        high if high > low else low + 1,
    ), f"window {low:.4g} to {high:.4g} (percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g})"


def _amounts(mask: NDArray[Any], labels: LabelSet, axis: int) -> NDArray[np.int64]:
    """(slices,) voxels of any of the structures in every slice along ``axis``."""
    table = np.zeros(65536, dtype=bool)
    table[labels.values] = True
    return np.array(
        [
            int(table[np.clip(one, 0, 65535).astype(np.uint16)].sum())
            for one in np.moveaxis(mask, axis, 0)
        ],
        dtype=np.int64,
    )


def _fullest(masks: list[NDArray[Any]], labels: LabelSet, axis: int, length: int) -> int:
    """The index along ``axis`` with most foreground of the first mask that has any; the middle
    where none has.
    """
    for mask in masks:
        amounts = _amounts(mask, labels, axis)
        if amounts.any():
            return int(amounts.argmax())
    return length // 2


def spread(amounts: NDArray[np.int64], most: int) -> list[int]:
    """At most ``most`` slices that hold something, in rising order, which part the structure into
    equal amounts; of one, the fullest.

    Args:
        amounts: (slices,) how much each holds; where none holds anything, the middle one is taken.
    """
    if not amounts.any():
        return [len(amounts) // 2]
    if most == 1:
        return [int(amounts.argmax())]
    below = np.cumsum(amounts) / amounts.sum()
    return [int(k) for k in np.unique(np.searchsorted(below, (np.arange(most) + 0.5) / most))]


def _draw(
    array: NDArray[Any],
    masks: dict[str, NDArray[Any]],
    labels: LabelSet,
    planes: list[Plane],
    indices: list[int],
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
    words: tuple[str, str],
    path: Path,
    filled: bool,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cuts = [plane.cut(array, index) for plane, index in zip(planes, indices, strict=True)]
    widths, heights = zip(
        *(plane.extent_mm(cut, spacing_mm) for plane, cut in zip(planes, cuts, strict=True)),
        strict=True,
    )
    # One scale for all planes, so that sizes can be compared.
    inches_per_mm = min(11.0 / sum(widths), 6.0 / max(heights))
    height = max(heights) * inches_per_mm
    figure = Figure(
        figsize=(max(4.5, sum(widths) * inches_per_mm), height + 0.8), dpi=110, facecolor="black"
    )
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, len(planes), width_ratios=widths))
    figure.subplots_adjust(
        left=0.005,
        right=0.995,
        bottom=0.52 / (height + 0.8),
        top=1 - 0.26 / (height + 0.8),
        wspace=0.02,
    )
    used: set[int] = set()
    for ax, plane, index, cut in zip(axes, planes, indices, cuts, strict=True):
        _show(ax, plane, cut, spacing_mm, low_high, plane.place(index, array.shape))
        if filled and masks:
            _fill(ax, plane.cut(next(iter(masks.values())), index), labels)
        for style, mask in zip(STYLES, masks.values(), strict=False):
            used |= _contours(ax, plane.cut(mask, index), labels, style)
    _legend(figure, list(masks), labels, used)
    _words(figure, (words[1], words[0], RIGHT_ON_LEFT if figure.axes[0].texts else ""))
    figure.savefig(path, facecolor="black", format="png")


@dataclass(frozen=True)
class _Row:
    """One slice of a case: where it lies, and its pixels; ``source`` is None where only masks are
    known.
    """

    place: str
    source: NDArray[Any] | None
    true: NDArray[Any]
    predicted: NDArray[Any]


def _draw_rows(
    rows: list[_Row],
    labels: LabelSet,
    plane: Plane,
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
    words: tuple[str, str],
    path: Path,
) -> None:
    """A row of panels each, the title above and the words below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if rows[0].source is None else 3
    width_mm, height_mm = plane.extent_mm(rows[0].true, spacing_mm)
    inches_per_mm = min(11.0 / (columns * width_mm), 11.0 / (len(rows) * height_mm))
    row_inches = height_mm * inches_per_mm + TITLE_INCHES
    height = len(rows) * row_inches + 0.82
    figure = Figure(
        figsize=(max(5.0, columns * width_mm * inches_per_mm), height), dpi=110, facecolor="black"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=0.005,
        right=0.995,
        bottom=0.48 / height,
        top=1 - 0.58 / height,
        wspace=0.02,
        hspace=TITLE_INCHES / (row_inches - TITLE_INCHES),
    )
    used = set().union(
        *(
            _draw_row(list(some), row, labels, plane, spacing_mm, low_high)
            for some, row in zip(axes, rows, strict=True)
        )
    )
    if len(labels) > 1:
        _legend(figure, [], labels, used)
    figure.text(
        0.5, 1 - 0.1 / height, words[0], ha="center", va="top", color="#f5f5f5", fontsize=11
    )
    _words(
        figure,
        (
            words[1],
            RIGHT_ON_LEFT if plane.edges.startswith("R") else "" if plane.edges else "as stored",
        ),
    )
    figure.savefig(path, facecolor="black", format="png")


def _draw_row(
    axes: list[Any],
    row: _Row,
    labels: LabelSet,
    plane: Plane,
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
) -> set[int]:
    """Source, truth and prediction of one slice; the label values that were drawn."""
    dice = f"Dice {_dice_of(row.predicted, row.true, labels)}" + " in this slice" * bool(row.place)
    titles, masks = (
        ["source", "truth", f"prediction, {dice}"][-len(axes) :],
        [None, row.true, row.predicted][-len(axes) :],
    )
    titles[0] += f", {row.place}" if row.place else ""
    used: set[int] = set()
    for ax, title, mask in zip(axes, titles, masks, strict=True):
        below = (
            row.source
            if row.source is not None
            else np.isin(row.true if mask is None else mask, labels.values)
        )
        _show(ax, plane, below, spacing_mm, low_high, title)
        used |= set() if mask is None else _contours(ax, mask, labels, "solid")
    return used


def _dice_of(predicted: NDArray[Any], true: NDArray[Any], labels: LabelSet) -> str:
    """Mean Dice of the structures that are in either, in words."""
    found = overlap.dice(overlap.count(predicted[..., None], true[..., None]).of(labels.values))
    return decimals(float(np.nanmean(found))) if np.isfinite(found).any() else "undefined"


def _show(
    ax: Any,
    plane: Plane,
    cut: NDArray[Any],
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
    title: str,
) -> None:
    """One slice in grey, with the letters of its edges and a title."""
    ax.imshow(
        cut,
        cmap="gray",
        vmin=low_high[0],
        vmax=low_high[1],
        aspect=plane.aspect(spacing_mm),
        interpolation="nearest",
    )
    ax.set(xlim=(-0.5, cut.shape[1] - 0.5), ylim=(cut.shape[0] - 0.5, -0.5))
    _letters(ax, plane)
    if title:
        ax.set_title(title, color="#c8c8c8", fontsize=8, pad=3)


def _contours(ax: Any, cut: NDArray[Any], labels: LabelSet, style: str) -> set[int]:
    """Draw the outline of every structure in ``cut``, through the middle between a pixel inside and
    one outside; the values drawn.
    """
    from matplotlib.collections import LineCollection

    found = {int(v) for v in np.unique(cut)} & set(labels.values)
    lines = [
        (line, _rgb(label))
        for label in labels
        if label.value in found
        for line in outline(cut == label.value)
    ]
    width = 1.3 if style == "solid" else 1.1
    ax.add_collection(
        LineCollection(
            [x for x, _ in lines], colors=[c for _, c in lines], linewidths=width, linestyles=style
        ),
        autolim=False,
    )
    return found


def _fill(ax: Any, cut: NDArray[Any], labels: LabelSet) -> None:
    """Every structure in its colour, half transparent; drawn pixel by pixel, so nothing is
    smoothed.
    """
    colours = np.zeros((int(cut.max(initial=0)) + 1, 4))
    for label in labels:
        if label.value < len(colours):
            colours[label.value] = (*_rgb(label), FILL)
    ax.imshow(
        colours[np.asarray(cut, dtype=np.intp)],
        aspect=ax.get_aspect(),
        interpolation="nearest",
        zorder=1,
    )


def outline(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around ``mask`` (rows, columns): each (n, 2) of x (column) and y (row), pixel
    centres at whole numbers.

    They cross from pixel to pixel half way, so they stand on the mask's edge, and they close at the
    picture's edge too. Empty: no line.
    """
    from contourpy import contour_generator

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.float32), 1)
    lines = contour_generator(z=part).lines(0.5)
    return [np.asarray(line) + np.array([left - 1, top - 1]) for line in lines]


def _rgb(label: Label) -> tuple[float, float, float]:
    red, green, blue = label.colour
    return red / 255, green / 255, blue / 255


def _letters(ax: Any, plane: Plane) -> None:
    from matplotlib.patheffects import withStroke

    # Letters stay readable on bright tissue.
    outlined = [withStroke(linewidth=2, foreground="black")]
    ax.set_axis_off()
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for letter, (x, y, across, up) in zip(plane.edges, places, strict=False):
        ax.text(
            x,
            y,
            letter,
            transform=ax.transAxes,
            ha=across,
            va=up,
            color="#f5f5f5",
            fontsize=9,
            fontweight="bold",
            path_effects=outlined,
        )


def _legend(figure: Any, names: list[str], labels: LabelSet, used: set[int]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=_rgb(label), lw=2, label=label.name)
        for label in labels
        if label.value in used
    ]
    if len(lines) > 8:
        lines = [*lines[:6], Line2D([], [], lw=0, label=f"and {len(lines) - 6} more")]
    lines += [
        Line2D([], [], color="#d8d8d8", lw=1.3, ls=style, label=name)
        for style, name in zip(STYLES, names, strict=False)
    ]
    if lines:
        width = figure.get_size_inches()[0]
        columns = max(1, min(len(lines), int(width / 1.2)))
        figure.legend(
            handles=lines,
            loc="lower center",
            bbox_to_anchor=(0.5, 0.03),
            ncols=columns,
            frameon=False,
            labelcolor="#e6e6e6",
            fontsize=8,
            handlelength=2.2,
        )


def _words(figure: Any, words: Sequence[str]) -> None:
    """The line at the foot of a picture."""
    figure.text(
        0.5,
        0.008,
        "  ·  ".join(w for w in words if w),
        ha="center",
        va="bottom",
        color="#a8a8a8",
        fontsize=7.5,
    )

"""Pictures of a scan with mask outlines.

``montage`` draws three planes of a volume; ``side_by_side`` draws source, truth and prediction of
some slices next to each other.

Pictures follow the radiological convention: the patient's right is on the left of the picture.
Axial planes are seen from the feet and coronal planes from the front; sagittal planes have the
front on the left side. Letters at the edges of every plane give its directions, pixels have the
aspect ratio of the voxels in mm, and the intensity window is printed. Oblique scans are shown along
the axes nearest to the anatomical ones. A plain 2-D picture, whose position in a patient is
unknown, is shown as it is stored and without letters.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.errors import GeometryError
from ..core.labels import IGNORED, Label, LabelSet
from ..core.volume import Volume
from ..core.words import decimals
from ..evaluation import overlapping as each
from ..metrics import overlap
from ..preprocessing import intensity
from ..preprocessing.shear import orthogonal
from .colours import BLACK, on_dark
from .fonts import make_legible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOFT_TISSUE_HU = (-160.0, 240.0)  # window 400 at level 40
TITLE_INCHES = 0.24  # height of the title above each panel
YELLOW = (255, 255, 0)
RIGHT_ON_LEFT = "patient's right on the left"
FILL = 0.4  # opacity of filled structures
STYLES = ("solid", "dashed", "dotted", "dashdot")
# Outlines: width of solid and of other lines, and of the dark casing on each side, in points. The
# casing is black; ``on_dark`` gives every colour a contrast of at least 3 to it.
OUTLINE_PT, OTHER_PT, CASING_PT = 1.4, 1.2, 1.0
# i runs to the patient's left, j to the back and k upwards: right, down and up in the pictures
_SHOWN_AS = "LPS"


@dataclass(frozen=True)
class Plane:
    """One plane through the volume, drawn as an image whose rows run downwards."""

    name: str
    axis: int  # the voxel axis perpendicular to the plane
    edges: str  # letters at the left, right, top and bottom edge; "" if unknown
    flip_rows: bool = False

    def cut(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """(rows, columns) of ``array`` (I, J, K) at ``index``; a view."""
        image: NDArray[Any] = array[(slice(None),) * self.axis + (index,)].T
        return image[::-1] if self.flip_rows else image

    def place(self, index: int, shape: Sequence[int]) -> str:
        """The slice number as text ("axial 12 of 40"); "" for a volume of one slice."""
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


@dataclass(frozen=True, eq=False)
class Heat:
    """A map drawn over an image, such as the entropy of samples.

    Args:
        name: of the map.
        volume: (I, J, K) values from 0.
        top: the value that is drawn brightest.
    """

    name: str
    volume: Volume
    top: float

    @property
    def words(self) -> str:
        return f"{self.name} 0 to {self.top:.2g}"

    def shown(self, placed: bool) -> NDArray[Any]:
        """The values in the pictures' orientation, 1 at the top."""
        volume = _as_shown(self.volume, placed, labels=False)
        return np.asarray(volume.channels_array[0] / self.top, np.float32)


AXIAL = Plane("axial", 2, "RLAP")
CORONAL = Plane("coronal", 1, "RLSI", flip_rows=True)
SAGITTAL = Plane("sagittal", 0, "APSI", flip_rows=True)
AS_STORED = Plane("", 2, "")
PLANES = (SAGITTAL, CORONAL, AXIAL)  # by the axis perpendicular to the plane


def montage(
    image: Volume | None,
    masks: dict[str, Volume],
    labels: LabelSet,
    path: str | Path,
    window: tuple[float, float] | None = None,
    title: str = "",
    filled: bool = False,
    heat: Heat | None = None,
) -> Path:
    """Write a PNG of the planes that show most of the first mask, with the contours of every mask.

    Args:
        image: (I, J, K) or (C, I, J, K); the first channel is shown. None shows the masks alone;
            then at least one mask is needed.
        masks: name -> label map, or codes of structures that overlap, on the image's grid. In this
            order they are drawn as solid, dashed and dotted lines. The first mask that is not empty
            decides the planes; if all are empty, the middle is shown.
        labels: the structures with their colours; other values are not drawn.
        path: the PNG file.
        window: lowest and highest intensity shown; None means -160..240 HU for CT and the 1st to
            99th percentile otherwise.
        filled: also fill the first mask's structures with their colour, half transparent.
        heat: a map to draw over the image, on its grid.

    Raises:
        GeometryError: a mask is not on the image's grid.
        OutputError: the file cannot be written.
    """
    figure = montage_figure(image, masks, labels, window, title, filled, heat)
    with replacing(path) as temporary:
        temporary.write_bytes(figure_png(figure))
    return Path(path)


def montage_figure(
    image: Volume | None,
    masks: dict[str, Volume],
    labels: LabelSet,
    window: tuple[float, float] | None = None,
    title: str = "",
    filled: bool = False,
    heat: Heat | None = None,
) -> Figure:
    """The planes that show most of the first mask, as a Matplotlib figure; arguments and errors as
    for ``montage``.
    """
    base = image if image is not None else next(iter(masks.values()))
    for name, mask in masks.items():
        check_place(base, name, mask)
    if heat is not None:
        check_place(base, heat.name, heat.volume)
    placed = is_placed(base)
    shown = _as_shown(base, placed, labels=image is None)
    drawn = {name: _as_shown(mask, placed).channels_array[0] for name, mask in masks.items()}
    array = shown.channels_array[0]
    low_high, words = _window(None if image is None else array, base.unit, window)
    if image is None:
        array = _structures_in(array, labels)
    cuts = _cuts(list(drawn.values()), labels, array.shape, placed)
    spacing_mm = shown.grid.spacing_mm
    glow = None if heat is None else heat.shown(placed)
    words = f"{words}; {heat.words}" if heat is not None else words
    return _planes_figure(
        array, drawn, labels, cuts, spacing_mm, low_high, (words, title), filled, glow
    )


def figure_png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, facecolor=figure.get_facecolor(), format="png")
    return file.getvalue()


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
    heat: Heat | None = None,
) -> Path:
    """Write a PNG of source, truth and prediction next to each other, one row per slice.

    The slices are perpendicular to the scan's slice axis. They are spread evenly over the
    structures' voxels (truth and prediction together), so that no slice is empty and the ends are
    not missed. Each slice has its Dice in its title. A single structure is outlined in yellow,
    several structures in their own colours.

    Args:
        image: (I, J, K) or (C, I, J, K), the first channel is shown; None shows the masks alone.
        truth, prediction: (I, J, K) label maps on the image's grid.
        labels: the structures; other values are not drawn.
        path: the PNG file.
        title: the line above, such as the case and its Dice.
        slices: maximum number of rows.
        window: as in ``montage``.
        heat: a map on the image's grid, drawn over the image in a panel of its own.

    Raises:
        GeometryError: a mask is not on the image's grid.
        OutputError: the file cannot be written.
    """
    base = truth if image is None else image
    for name, mask in (("truth", truth), ("prediction", prediction)):
        check_place(base, name, mask)
    if heat is not None:
        check_place(base, heat.name, heat.volume)
    # The slice axis is that of the stored scan: find it again after reorienting.
    placed, axis = is_placed(base), base.grid.slice_axis
    if placed:
        axis = base.grid.orthogonal().reorient(_SHOWN_AS)[1].order.index(axis)
    shown = _as_shown(base, placed, labels=image is None)
    t, p = (_as_shown(v, placed) for v in (truth, prediction))
    true, predicted = t.channels_array[0], p.channels_array[0]
    plane = PLANES[axis] if placed else Plane("", axis, "")
    chosen = spread(_amounts(true, labels, axis) + _amounts(predicted, labels, axis), slices)
    array = None if image is None else shown.channels_array[0]
    low_high, words = _window(array, base.unit, window)
    words = f"{words}; {heat.words}" if heat is not None else words
    rows = _rows(plane, chosen, array, true, predicted, heat, placed)
    drawn = labels if len(labels) != 1 else LabelSet((replace(labels.labels[0], colour=YELLOW),))
    with replacing(path) as temporary:
        _draw_rows(rows, drawn, plane, shown.grid.spacing_mm, low_high, (title, words), temporary)
    return Path(path)


def _rows(
    plane: Plane,
    chosen: Sequence[int],
    array: NDArray[Any] | None,
    true: NDArray[Any],
    predicted: NDArray[Any],
    heat: Heat | None,
    placed: bool,
) -> list[_Row]:
    """The chosen slices of a case."""
    glow = None if heat is None else heat.shown(placed)
    return [
        _Row(
            plane.place(k, true.shape),
            None if array is None else plane.cut(array, k),
            plane.cut(true, k),
            plane.cut(predicted, k),
            None if glow is None else plane.cut(glow, k),
            "" if heat is None else heat.name,
        )
        for k in chosen
    ]


def check_place(image: Volume, name: str, mask: Volume) -> None:
    """Check that a mask called ``name`` is on the image's grid.

    For plain pictures, whose position is unknown, only the shapes are compared.

    Raises:
        GeometryError: the grids differ; the message gives the shapes or the distance.
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
            f"the {name} is not on the image's grid: {found}", path=mask.source or None
        )


def is_placed(volume: Volume) -> bool:
    """Whether the axes have known directions in the patient; those of plain pictures have not."""
    return bool(volume.meta.get("place_known", volume.meta.get("spacing_known", True)))


def _as_shown(volume: Volume, placed: bool, labels: bool = True) -> Volume:
    """The volume in the pictures' orientation, at right angles; as it is stored if its directions
    are unknown. ``labels``: whether it is a mask.
    """
    return orthogonal(volume, labels).reorient(_SHOWN_AS) if placed else volume


def _planes(shape: Sequence[int], placed: bool) -> list[Plane]:
    """The planes to show: all three of a volume, and the only one of a single slice.

    A picture without a position is shown in its stored plane.
    """
    if not placed:
        return [AS_STORED]
    thin = [p for p in (AXIAL, CORONAL, SAGITTAL) if shape[p.axis] == 1]
    return thin[:1] or [AXIAL, CORONAL, SAGITTAL]


def _cuts(
    masks: list[NDArray[Any]], labels: LabelSet, shape: Sequence[int], placed: bool
) -> list[tuple[Plane, int]]:
    """The planes to show, each with the slice that shows most of the structures."""
    return [
        (plane, _fullest(masks, labels, plane.axis, shape[plane.axis]))
        for plane in _planes(shape, placed)
    ]


def _window(
    array: NDArray[Any] | None, unit: str, window: tuple[float, float] | None
) -> tuple[tuple[float, float], str]:
    """Lowest and highest intensity shown, and a description of the window for the picture.

    ``array`` is None if masks are shown alone; they have values 0 and 1, drawn as black and grey.
    """
    if array is None:
        return (0.0, 2.5), "masks alone"
    if window is None and unit == "HU":
        window = SOFT_TISSUE_HU
    if window is not None:
        low, high = window
        return (low, high), f"window {low:g} to {high:g}{' HU' if unit == 'HU' else ''}"
    low, high = intensity.shown_range(intensity.sample(array))
    named = "percentiles {:g} to {:g}".format(*intensity.SHOWN)
    return (low, high), f"window {low:.4g} to {high:.4g} ({named})"


def _amounts(mask: NDArray[Any], labels: LabelSet, axis: int) -> NDArray[np.int64]:
    """(slices,) number of structure voxels in every slice along ``axis``."""
    if labels.overlapping:
        others = tuple(a for a in range(3) if a != axis)
        return np.asarray(np.count_nonzero(_structures_in(mask, labels), axis=others), np.int64)
    # A lookup table over all 16-bit values is faster than comparing with each label.
    table = np.zeros(65536, dtype=bool)
    table[labels.values] = True
    return np.array(
        [
            int(table[np.clip(one, 0, 65535).astype(np.uint16)].sum())
            for one in np.moveaxis(mask, axis, 0)
        ],
        dtype=np.int64,
    )


def _structures_in(mask: NDArray[Any], labels: LabelSet) -> NDArray[np.bool_]:
    """The voxels of any structure in a label map."""
    if labels.overlapping:
        return np.asarray((mask != 0) & (mask != IGNORED))
    return np.isin(mask, labels.values)


def _fullest(masks: list[NDArray[Any]], labels: LabelSet, axis: int, length: int) -> int:
    """The slice along ``axis`` with most foreground, in the first mask that has any.

    If all masks are empty, it is the middle slice.
    """
    for mask in masks:
        amounts = _amounts(mask, labels, axis)
        if amounts.any():
            return int(amounts.argmax())
    return length // 2


def spread(amounts: NDArray[np.int64], most: int) -> list[int]:
    """At most ``most`` slices, in ascending order, that divide the structure into equal amounts.

    No slice is empty. If ``most`` is 1, the slice with the largest amount is returned.

    Args:
        amounts: (slices,) number of structure voxels per slice; if all are 0, the middle slice is
            returned.
    """
    if not amounts.any():
        return [len(amounts) // 2]
    if most == 1:
        return [int(amounts.argmax())]
    # The cumulative share of voxels reaches 1/(2n), 3/(2n), ... in the chosen slices.
    below = np.cumsum(amounts) / amounts.sum()
    return [int(k) for k in np.unique(np.searchsorted(below, (np.arange(most) + 0.5) / most))]


def _planes_figure(
    array: NDArray[Any],
    masks: dict[str, NDArray[Any]],
    labels: LabelSet,
    cuts: list[tuple[Plane, int]],
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
    words: tuple[str, str],
    filled: bool,
    glow: NDArray[Any] | None,
) -> Figure:
    """Draw the planes in one row; ``words`` are the window and the title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    slices = [plane.cut(array, index) for plane, index in cuts]
    widths, heights = zip(
        *(plane.extent_mm(one, spacing_mm) for (plane, _), one in zip(cuts, slices, strict=True)),
        strict=True,
    )
    # One scale for all planes, so that sizes can be compared.
    inches_per_mm = min(11.0 / sum(widths), 6.0 / max(heights))
    height = max(heights) * inches_per_mm
    figure = Figure(
        figsize=(max(4.5, sum(widths) * inches_per_mm), height + 0.8), dpi=110, facecolor="black"
    )
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, len(cuts), width_ratios=widths))
    figure.subplots_adjust(
        left=0.005,
        right=0.995,
        bottom=0.52 / (height + 0.8),
        top=1 - 0.26 / (height + 0.8),
        wspace=0.02,
    )
    used: set[int] = set()
    for ax, (plane, index), one in zip(axes, cuts, slices, strict=True):
        _show(ax, plane, one, spacing_mm, low_high, plane.place(index, array.shape))
        if glow is not None:
            _glow(ax, plane.cut(glow, index))
        if filled and masks:
            _fill(ax, plane.cut(next(iter(masks.values())), index), labels)
        for style, mask in zip(STYLES, masks.values(), strict=False):
            used |= _contours(ax, plane.cut(mask, index), labels, style)
    _legend(figure, list(masks), labels, used)
    _words(figure, (words[1], words[0], RIGHT_ON_LEFT if figure.axes[0].texts else ""))
    make_legible(figure, labels)
    return figure


@dataclass(frozen=True)
class _Row:
    """One slice of a case: its place as text, and its pixels.

    ``source`` is None if only the masks are known; ``glow`` is a map called ``name``, if any.
    """

    place: str
    source: NDArray[Any] | None
    true: NDArray[Any]
    predicted: NDArray[Any]
    glow: NDArray[Any] | None = None
    name: str = ""


def _draw_rows(
    rows: list[_Row],
    labels: LabelSet,
    plane: Plane,
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
    words: tuple[str, str],
    path: Path,
) -> None:
    """Draw one row of panels per slice and save the figure.

    ``words`` are the title, above the panels, and the window, below them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = (2 if rows[0].source is None else 3) + (rows[0].glow is not None)
    width_mm, height_mm = plane.extent_mm(rows[0].true, spacing_mm)
    # The figure is at most 11 inches wide and 11 inches high (without titles and legend).
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
    make_legible(figure, labels)
    figure.savefig(path, facecolor="black", format="png")


def _draw_row(
    axes: list[Any],
    row: _Row,
    labels: LabelSet,
    plane: Plane,
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
) -> set[int]:
    """Draw source, truth and prediction of one slice; returns the label values that were drawn."""
    dice = f"Dice {_dice_of(row.predicted, row.true, labels)}" + " in this slice" * bool(row.place)
    if row.glow is not None:
        below = _structures_in(row.predicted, labels) if row.source is None else row.source
        last = axes.pop()
        _show(last, plane, below, spacing_mm, low_high, row.name)
        _glow(last, row.glow)
        _contours(last, row.predicted, labels, "solid")
    # Without a source there are two panels, so the first title and mask are cut off.
    titles, masks = (
        ["source", "truth", f"prediction, {dice}"][-len(axes) :],
        [None, row.true, row.predicted][-len(axes) :],
    )
    titles[0] += f", {row.place}" if row.place else ""
    used: set[int] = set()
    for ax, title, mask in zip(axes, titles, masks, strict=True):
        # Masks without a source are drawn on their own foreground.
        below = (
            row.source
            if row.source is not None
            else _structures_in(row.true if mask is None else mask, labels)
        )
        _show(ax, plane, below, spacing_mm, low_high, title)
        used |= set() if mask is None else _contours(ax, mask, labels, "solid")
    return used


def _dice_of(predicted: NDArray[Any], true: NDArray[Any], labels: LabelSet) -> str:
    """Mean Dice of the structures that are in either mask, as text."""
    p, t = predicted[..., None], true[..., None]
    if labels.overlapping:
        found = overlap.dice(each.count(p, t, labels, float("nan")))
    else:
        found = overlap.dice(overlap.count(p, t).of(labels.values))
    return decimals(float(np.nanmean(found))) if np.isfinite(found).any() else "undefined"


def _show(
    ax: Any,
    plane: Plane,
    cut: NDArray[Any],
    spacing_mm: Sequence[float],
    low_high: tuple[float, float],
    title: str,
) -> None:
    """Draw one slice in grey, with the letters of its edges and a title."""
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
    """Draw the outline of every structure in ``cut``; returns the label values that were drawn."""
    drawn = list(labels)
    if not labels.overlapping and not any(label.parts for label in labels):
        present = {int(v) for v in np.unique(cut)}
        drawn = [label for label in labels if label.value in present]
    parts = [(labels.inside(cut, label), label) for label in drawn]
    parts = [(mask, label) for mask, label in parts if mask.any()]
    draw_outlines(ax, parts, style)
    return {label.value for _, label in parts}


def draw_outlines(
    ax: Any, parts: Sequence[tuple[NDArray[np.bool_], Label]], style: str = "solid"
) -> None:
    """Draw the outline of each mask in the colour of its structure, on a dark casing.

    An outline runs midway between a pixel inside and a pixel outside. The casing keeps it visible
    on tissue of its own brightness. All casings are below all outlines of the same axes, so that a
    dashed outline does not hide a solid one.

    Args:
        ax: Matplotlib axes that show the slice.
        parts: (rows, columns) mask and structure; masks may overlap.
        style: a line style of Matplotlib; "solid" lines are slightly wider than others.
    """
    from matplotlib.collections import LineCollection

    lines = [(line, _rgb(label)) for mask, label in parts for line in outline(mask)]
    paths, width = [line for line, _ in lines], OUTLINE_PT if style == "solid" else OTHER_PT
    layers: tuple[tuple[Any, float, str, float], ...] = (
        (BLACK, width + 2 * CASING_PT, "solid", 1.5),
        ([colour for _, colour in lines], width, style, 2.0),
    )
    for colours, linewidth, drawn, order in layers:
        ax.add_collection(
            LineCollection(
                paths, colors=colours, linewidths=linewidth, linestyles=drawn, zorder=order
            ),
            autolim=False,
        )


def _glow(ax: Any, cut: NDArray[Any]) -> None:
    """Draw a map (rows, columns) of values from 0 to 1: the higher, the brighter and the less
    transparent.
    """
    from matplotlib import colormaps

    colours = colormaps["inferno"](np.clip(cut, 0, 1))
    colours[..., 3] = np.clip(cut, 0, 1)
    ax.imshow(colours, aspect=ax.get_aspect(), interpolation="nearest", zorder=1)


def _fill(ax: Any, cut: NDArray[Any], labels: LabelSet) -> None:
    """Fill every structure with its colour, half transparent and without smoothing."""
    values = np.arange(int(cut.max(initial=0)) + 1)
    colours = np.zeros((len(values), 4))
    # Of structures that overlap, the last one is seen.
    for label in labels:
        colours[labels.inside(values, label)] = (*_rgb(label), FILL)
    ax.imshow(
        colours[np.asarray(cut, dtype=np.intp)],
        aspect=ax.get_aspect(),
        interpolation="nearest",
        zorder=1,
    )


def outline(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around ``mask`` (rows, columns).

    Each line is (n, 2): x (column) and y (row), with pixel centres at whole numbers. The lines run
    midway between pixels inside and outside, so they are on the mask's edge, and they also close at
    the border of the picture. An empty mask has no line.
    """
    from contourpy import contour_generator

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    # Trace only the mask's bounding box, padded by one pixel so that lines close at its border.
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.float32), 1)
    lines = contour_generator(z=part).lines(0.5)
    return [np.asarray(line) + np.array([left - 1, top - 1]) for line in lines]


def _rgb(label: Label) -> tuple[float, float, float]:
    """The colour in which a structure is drawn, 0..1: its own, lighter if it is too dark."""
    red, green, blue = on_dark(label.colour)
    return red / 255, green / 255, blue / 255


def _letters(ax: Any, plane: Plane) -> None:
    """Write the letters of the plane's directions at its edges."""
    from matplotlib.patheffects import withStroke

    # A black outline keeps letters readable on bright tissue.
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
    """A legend of the structures in ``used`` (at most 8 entries) and of the masks' line styles."""
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
    """Write the line at the foot of a picture."""
    figure.text(
        0.5,
        0.008,
        "  ·  ".join(w for w in words if w),
        ha="center",
        va="bottom",
        color="#a8a8a8",
        fontsize=7.5,
    )

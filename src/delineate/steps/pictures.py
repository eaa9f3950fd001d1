"""Pictures of a scan with contours: three planes of a volume, one of a 2-D image.

Shown is the radiological convention: the patient's right is on the left of the picture, seen from the feet in axial
planes and from the front in coronal ones; sagittal planes look to the patient's left with the front on the left side.
Letters on every plane say where its edges point, its aspect is that of the voxels in mm, and the window is stated.
Oblique scans are shown along the axes nearest to the anatomical ones. A plain 2-D picture, whose place in a patient
is unknown, is shown as it is stored and without letters.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing
from ..core.errors import GeometryError
from ..core.labels import Label, LabelSet
from ..core.volume import Volume

SOFT_TISSUE_HU = (-160.0, 240.0)  # window 400 at level 40
PERCENTILES = (1.0, 99.0)
STYLES = ("solid", "dashed", "dotted", "dashdot")
GRID_TOLERANCE_MM = 0.1
INK = "#123457"  # stands for the page's text colour in a plot, and is replaced by it
_SHOWN_AS = "LPS"  # i runs to the patient's left, j to the back, k upwards: the picture's right, down and up


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


def montage(image: Volume, masks: dict[str, Volume], labels: LabelSet, path: str | Path, window: tuple[float, float] | None = None,
            title: str = "") -> Path:  # fmt: skip
    """Write a PNG of the planes that show most of the first mask, with every mask's contours.

    Args:
        image: (I, J, K) or (C, I, J, K); the first channel is shown.
        masks: name -> label map on the image's grid, drawn in this order as solid, dashed, dotted lines; where the
            first is empty the next one chooses the planes, and the middle is shown where all are.
        labels: whose colours are used; other values are not drawn.
        path: the PNG file.
        window: lowest and highest shown value; None is -160..240 HU for CT, else the 1st to 99th percentile.

    Raises:
        GeometryError: a mask does not stand on the image's grid.
        OutputError: it cannot be written.
    """
    for name, mask in masks.items():
        _check_place(image, name, mask)
    placed = _is_placed(image)
    shown = image.reorient(_SHOWN_AS) if placed else image
    drawn = {name: (mask.reorient(_SHOWN_AS) if placed else mask).channels_array[0] for name, mask in masks.items()}
    array = shown.channels_array[0]
    planes = _planes(array.shape, placed)
    low_high, words = _window(array, image.unit, window)
    indices = [_fullest(list(drawn.values()), labels, plane.axis, array.shape[plane.axis]) for plane in planes]
    with replacing(path) as temporary:
        _draw(array, drawn, labels, planes, indices, shown.grid.spacing_mm, low_high, (words, title), temporary)
    return Path(path)


def _check_place(image: Volume, name: str, mask: Volume) -> None:
    both = _is_placed(image) and _is_placed(mask)
    same = image.grid.matches(mask.grid, GRID_TOLERANCE_MM) if both else image.grid.shape == mask.grid.shape
    if not same:
        distance = image.grid.distance_mm(mask.grid)
        found = f"shape {mask.grid.shape} against {image.grid.shape}" if np.isinf(distance) else f"{distance:.2f} mm away"
        raise GeometryError(f"the {name} does not stand on the image's grid: {found}", path=mask.source or None)


def _is_placed(volume: Volume) -> bool:
    """Whether its axes mean directions in a patient; those of plain pictures do not."""
    return bool(volume.meta.get("place_known", volume.meta.get("spacing_known", True)))


def _planes(shape: Sequence[int], placed: bool) -> list[Plane]:
    """All three planes of a volume, the stored one of pictures without a place; of a single slice the one that holds it."""
    if not placed:
        return [AS_STORED]
    thin = [p for p in (AXIAL, CORONAL, SAGITTAL) if shape[p.axis] == 1]
    return thin[:1] or [AXIAL, CORONAL, SAGITTAL]


def _window(array: NDArray[Any], unit: str, window: tuple[float, float] | None) -> tuple[tuple[float, float], str]:
    if window is None and unit == "HU":
        window = SOFT_TISSUE_HU
    if window is not None:
        low, high = window
        return (low, high), f"window {low:g} to {high:g}{' HU' if unit == 'HU' else ''}"
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    low, high = (float(v) for v in np.percentile(finite, PERCENTILES)) if finite.size else (0.0, 1.0)
    return (low, high if high > low else low + 1), f"window {low:.4g} to {high:.4g} (percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g})"


def _fullest(masks: list[NDArray[Any]], labels: LabelSet, axis: int, length: int) -> int:
    """The index along ``axis`` with most foreground of the first mask that has any; the middle where none has."""
    table = np.zeros(65536, dtype=bool)
    table[labels.values] = True
    others = tuple(a for a in range(3) if a != axis)
    for mask in masks:
        wanted = table[np.clip(mask, 0, 65535).astype(np.uint16)].sum(axis=others)
        if wanted.any():
            return int(wanted.argmax())
    return length // 2


def _draw(array: NDArray[Any], masks: dict[str, NDArray[Any]], labels: LabelSet, planes: list[Plane], indices: list[int],
          spacing_mm: Sequence[float], low_high: tuple[float, float], words: tuple[str, str], path: Path) -> None:  # fmt: skip
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cuts = [plane.cut(array, index) for plane, index in zip(planes, indices, strict=True)]
    widths, heights = zip(*(plane.extent_mm(cut, spacing_mm) for plane, cut in zip(planes, cuts, strict=True)), strict=True)
    inches_per_mm = min(11.0 / sum(widths), 6.0 / max(heights))  # one scale for all planes, so that sizes can be compared
    height = max(heights) * inches_per_mm
    figure = Figure(figsize=(max(4.5, sum(widths) * inches_per_mm), height + 0.8), dpi=110, facecolor="black")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, len(planes), width_ratios=widths))
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.52 / (height + 0.8), top=1 - 0.26 / (height + 0.8), wspace=0.02)
    used: set[int] = set()
    for ax, plane, index, cut in zip(axes, planes, indices, cuts, strict=True):
        ax.imshow(cut, cmap="gray", vmin=low_high[0], vmax=low_high[1], aspect=plane.aspect(spacing_mm), interpolation="nearest")
        for style, mask in zip(STYLES, masks.values(), strict=False):
            used |= _contours(ax, plane.cut(mask, index), labels, style)
        _letters(ax, plane, index, array.shape[plane.axis])
    _legend(figure, list(masks), labels, used, words)
    figure.savefig(path, facecolor="black", format="png")


def _contours(ax: Any, cut: NDArray[Any], labels: LabelSet, style: str) -> set[int]:
    """Draw the outline of every structure in ``cut``; the values that were drawn."""
    found = {int(v) for v in np.unique(cut)} & set(labels.values)
    rows, columns = np.arange(-1, cut.shape[0] + 1), np.arange(-1, cut.shape[1] + 1)
    for label in labels:
        if label.value in found:
            padded = np.pad((cut == label.value).astype(np.float32), 1)  # so that outlines close at the image's edge
            ax.contour(columns, rows, padded, levels=[0.5], colors=[_rgb(label)], linewidths=1.3 if style == "solid" else 1.1, linestyles=style)
    ax.set_xlim(-0.5, cut.shape[1] - 0.5)
    ax.set_ylim(cut.shape[0] - 0.5, -0.5)
    return found


def _rgb(label: Label) -> tuple[float, float, float]:
    red, green, blue = label.colour
    return red / 255, green / 255, blue / 255


def _letters(ax: Any, plane: Plane, index: int, length: int) -> None:
    from matplotlib.patheffects import withStroke

    outlined = [withStroke(linewidth=2, foreground="black")]  # letters stay readable on bright tissue
    ax.set_axis_off()
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"), (0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))
    for letter, (x, y, across, up) in zip(plane.edges, places, strict=False):
        ax.text(x, y, letter, transform=ax.transAxes, ha=across, va=up, color="#f5f5f5", fontsize=9, fontweight="bold", path_effects=outlined)
    if length > 1:
        ax.set_title(f"{plane.name} {index + 1} of {length}", color="#c8c8c8", fontsize=8, pad=3)


def _legend(figure: Any, names: list[str], labels: LabelSet, used: set[int], words: tuple[str, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_rgb(label), lw=2, label=label.name) for label in labels if label.value in used]
    if len(lines) > 8:
        lines = [*lines[:6], Line2D([], [], lw=0, label=f"and {len(lines) - 6} more")]
    lines += [Line2D([], [], color="#d8d8d8", lw=1.3, ls=style, label=name) for style, name in zip(STYLES, names, strict=False)]
    if lines:
        width = figure.get_size_inches()[0]
        columns = max(1, min(len(lines), int(width / 1.2)))
        figure.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 0.03), ncols=columns, frameon=False, labelcolor="#e6e6e6", fontsize=8,
                      handlelength=2.2)  # fmt: skip
    figure.text(0.5, 0.008, "  ·  ".join(w for w in (words[1], words[0], "patient's right on the left" * bool(figure.axes[0].texts)) if w),
                ha="center", va="bottom", color="#a8a8a8", fontsize=7.5)  # fmt: skip


# ---- plots ----


def plot_svg(lines: Sequence[tuple[str, list[float], list[float], str, str]], y_name: str, limits: tuple[float, float] | None = None,
             x_name: str = "step", zero: bool = False) -> str:  # fmt: skip
    """An SVG element of (name, x, y, colour, style) lines for an HTML page, in the page's own text colour.

    A style is one of matplotlib's line styles, or "o" for points; the colour ``INK`` becomes the page's. A line with
    the name "" is not in the legend. ``limits`` are those of y; ``zero`` draws a line at 0.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": f"{y_name}{len(lines)}", "text.color": INK, "axes.edgecolor": INK,
                     "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 9, "font.family": "sans-serif"}  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(5.4, 3.1), layout="constrained")
        ax = figure.subplots()
        for name, x, y, colour, style in lines:
            look: dict[str, Any] = {"ls": "none", "marker": "o", "ms": 4, "alpha": 0.75} if style == "o" else {"ls": style, "lw": 1.5}
            ax.plot(x, y, color=colour, label=name or "_hidden", **look)
        if zero:
            ax.axhline(0, color=INK, lw=0.8)
        ax.set(xlabel=x_name, ylabel=y_name)
        if limits:
            ax.set_ylim(limits)
        ax.spines[["top", "right"]].set_visible(False)
        if any(name for name, *_ in lines):
            ax.legend(frameon=False, fontsize=8)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")

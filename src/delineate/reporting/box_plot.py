"""Plots that compare runs: box plots with one box per structure and run, and plots of differences.

A box spans the quartiles, with the median as a line. Whiskers reach the last case within 1.5 times
the interquartile range (Tukey 1977). Every case is drawn as a point, so no outlier is hidden. The
same case of several runs is joined by a line if there are few cases. The module knows values and
names, and no file except those it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.atomic import replacing

# Okabe & Ito 2008.
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#000000",
)
MOST_LINES = 40  # paired cases joined by lines; more lines would hide the boxes
MOST_POINTS = 400  # per box; above this number, points are drawn smaller and as an image
BOXES_A_ROW = 24
MOST_ROWS = 12
MOST_ROWS_OF_DIFFERENCES = 60


def box_plot(
    groups: dict[str, NDArray[np.float64]],
    runs: Sequence[str],
    words: str,
    per: str,
    paths: Sequence[Path],
) -> None:
    """Draw the box plots and write them to files.

    Args:
        groups: structure -> (runs, n) values; columns with a value that is not finite are left out.
        runs: names of the runs, in the order of the rows of ``groups``.
        words: name of the metric, with its unit.
        per: what one point stands for ("case", "slice", "patient").
        paths: files to write; the suffix (.png, .svg) decides the format.

    Raises:
        OutputError: a file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A row holds as many structures as fit; those beyond the last row are only in compare.csv.
    each = max(1, BOXES_A_ROW // len(runs))
    names = list(groups)
    shown = names[: each * MOST_ROWS]
    rows = [shown[k : k + each] for k in range(0, len(shown), each)]
    width = max(4.8, 1.4 + 0.5 * len(rows[0]) * (len(runs) + 0.8))
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": words, "font.family": "sans-serif", "font.size": 9}
    ):
        figure = Figure(figsize=(width, 0.7 + 3.4 * len(rows)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        for ax, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
            _draw_row(ax, {name: groups[name] for name in row}, runs)
            ax.set_ylabel(words)
        _legend(figure, runs, per, len(names) - len(shown))
        _save(figure, paths)


def difference_plot(
    groups: dict[str, NDArray[np.float64]],
    intervals: dict[str, list[tuple[float, float, float]]],
    runs: Sequence[str],
    words: str,
    per: str,
    paths: Sequence[Path],
) -> None:
    """Draw the difference of each later run to the first run, and write the figure to files.

    Each structure has one row per later run: a point per case, the mean with its interval, and a
    line at zero.

    Args:
        groups: structure -> (runs, n) values; columns with a value that is not finite are left out.
        intervals: structure -> (mean, lower end, upper end) of each later run; ends that are NaN
            are not drawn.
        runs, words, per, paths: as for ``box_plot``.

    Raises:
        OutputError: a file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(groups)[:MOST_ROWS_OF_DIFFERENCES]
    later = runs[1:]
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": words, "font.family": "sans-serif", "font.size": 9}
    ):
        figure = Figure(
            figsize=(7.0, 1.3 + 0.3 * len(names) * (len(later) + 0.4)),
            dpi=150,
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        ax.axvline(0, color="#555555", lw=0.9, zorder=1)
        _difference_rows(ax, {name: groups[name] for name in names}, intervals, len(later))
        ax.set_xlabel(f"{words}: difference to {runs[0]}, each {per}, mean and 95 % interval")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#e4e4e4", lw=0.6)
        ax.set_axisbelow(True)
        _difference_legend(figure, later, len(groups) - len(names))
        _save(figure, paths)


def _difference_rows(
    ax: Any,
    groups: dict[str, NDArray[np.float64]],
    intervals: dict[str, list[tuple[float, float, float]]],
    later: int,
) -> None:
    """The rows of all structures, each with one row per later run."""
    # ``at`` is the vertical position of the structure's first row.
    at, ticks = 0.0, []
    for name, values in groups.items():
        ticks.append(at + (later - 1) / 2)
        for k in range(later):
            colour = COLOURS[(k + 1) % len(COLOURS)]
            _difference_row(ax, at + k, values[[0, k + 1]], intervals[name][k], colour)
        at += later + 0.6
    ax.set_yticks(ticks, list(groups))
    ax.set_ylim(at - 0.5, -0.9)  # reversed: the first structure is on top


def _difference_row(
    ax: Any, y: float, both: NDArray[np.float64], interval: tuple[float, float, float], colour: str
) -> None:
    """Draw one run's differences at height ``y``: ``both`` is (2, n), the first and this run."""
    first, other = both[:, np.isfinite(both).all(axis=0)]
    kept = other - first
    # Vertical jitter with a fixed seed keeps equal differences apart and the file reproducible.
    shift = np.random.default_rng(0).uniform(-0.22, 0.22, len(kept))
    ax.plot(
        kept,
        y + shift,
        ls="none",
        marker="o",
        ms=2.6,
        mew=0,
        alpha=0.45,
        color=colour,
        zorder=2,
        rasterized=len(kept) > MOST_POINTS,
    )
    mean, low, high = interval
    if np.isfinite(low) and np.isfinite(high):
        ax.plot([low, high], [y, y], color="black", lw=1.6, zorder=3, solid_capstyle="butt")
    if np.isfinite(mean):
        ax.plot(
            [mean], [y], ls="none", marker="D", ms=5, color=colour, mec="black", mew=0.8, zorder=4
        )


def _difference_legend(figure: Any, later: Sequence[str], hidden: int) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D(
            [],
            [],
            ls="none",
            marker="D",
            ms=5,
            color=COLOURS[(k + 1) % len(COLOURS)],
            mec="black",
            mew=0.8,
            label=name,
        )
        for k, name in enumerate(later)
    ]
    title = f"{hidden} more structures in compare.csv" if hidden else None
    figure.legend(
        handles=marks,
        loc="outside upper center",
        ncols=min(len(later), 4),
        frameon=False,
        title=title,
        title_fontsize=8,
    )


def _save(figure: Any, paths: Sequence[Path]) -> None:
    for path in paths:
        with replacing(path) as temporary:
            # Without a date, equal figures give equal SVG files.
            metadata = {"Date": None, "Creator": None} if Path(path).suffix == ".svg" else None
            figure.savefig(temporary, format=Path(path).suffix[1:], metadata=metadata)


def _draw_row(ax: Any, groups: dict[str, NDArray[np.float64]], runs: Sequence[str]) -> None:
    """Draw one row of structures on ``ax``, with a group of boxes for each structure."""
    step = len(runs) + 0.8
    for number, values in enumerate(groups.values()):
        kept = values[:, np.isfinite(values).all(axis=0)]
        # Boxes of one structure are 1 apart; 0.8 is added between structures.
        at = number * step + np.arange(len(runs))
        if kept.shape[1] and kept.shape[1] <= MOST_LINES:
            ax.plot(at, kept, color="#9a9a9a", lw=0.6, alpha=0.7, zorder=1)
        for k, (x, own) in enumerate(zip(at, kept, strict=True)):
            _box(ax, x, own, COLOURS[k % len(COLOURS)], jitter=kept.shape[1] > MOST_LINES)
    centres = np.arange(len(groups)) * step + (len(runs) - 1) / 2
    counts = [int(np.isfinite(v).all(axis=0).sum()) for v in groups.values()]
    ax.set_xticks(centres, [f"{name}\nn = {n}" for name, n in zip(groups, counts, strict=True)])
    ax.set_xlim(-0.8, (len(groups) - 1) * step + len(runs) - 0.2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="y", color="#e4e4e4", lw=0.6)
    ax.set_axisbelow(True)


def _box(ax: Any, x: float, values: NDArray[np.float64], colour: str, jitter: bool) -> None:
    """Draw one run's box and points at ``x``; without values, nothing is drawn."""
    if not len(values):
        return
    line = {"color": colour, "lw": 1.2}
    ax.boxplot(
        [values],
        positions=[x],
        widths=0.62,
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        zorder=2,
        boxprops={"facecolor": colour + "30", "edgecolor": colour, "lw": 1.2},
        whiskerprops=line,
        capprops=line,
        medianprops={"color": colour, "lw": 2.2},
    )
    shift = np.random.default_rng(0).uniform(-0.24, 0.24, len(values)) if jitter else 0.0
    many = len(values) > MOST_POINTS
    look = {"ms": 1.5, "alpha": 0.35, "rasterized": True} if many else {"ms": 3, "alpha": 0.75}
    ax.plot(
        x + shift + np.zeros(len(values)),
        values,
        ls="none",
        marker="o",
        mew=0,
        color=colour,
        zorder=3,
        **look,
    )


def _legend(figure: Any, runs: Sequence[str], per: str, hidden: int) -> None:
    from matplotlib.patches import Patch

    boxes = [
        Patch(
            facecolor=COLOURS[k % len(COLOURS)] + "30",
            edgecolor=COLOURS[k % len(COLOURS)],
            label=name,
        )
        for k, name in enumerate(runs)
    ]
    title = f"one point per {per}; box: quartiles and median" + (
        f"; {hidden} more structures in compare.csv" if hidden else ""
    )
    figure.legend(
        handles=boxes,
        loc="outside upper center",
        ncols=min(len(runs), 4),
        frameon=False,
        title=title,
        title_fontsize=8,
    )

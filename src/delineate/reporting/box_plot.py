"""Plots of runs side by side: of each structure a box a run, the single cases as points, paired
cases joined where they are few; and of differences.

The box spans the quartiles with the median as a line; whiskers reach the last case within 1.5 times
that span (Tukey 1977); every case is drawn, so nothing hides outside. It knows values and names,
and no file but the ones it writes.
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
MOST_LINES = 40  # paired cases that are joined; more would be a grey wall
MOST_POINTS = 400  # of a box; the rest is drawn thinner
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
    """Draw and write.

    Args:
        groups: structure -> (runs, n) values; columns with a NaN are left out.
        runs: their names.
        words: the metric, with its unit.
        per: what a point is ("case", "slice", "patient").
        paths: one figure in each of these, in the format of the ending (.png, .svg).

    Raises:
        OutputError: it cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    """Draw what each later run has more than the first: a row a structure, a point a case, the mean
    with its interval, and a line at zero.

    Args:
        groups: structure -> (runs, n) values; columns with one that is not finite are left out.
        intervals: structure -> of each later run (mean, lower end, upper end); ends that are NaN
            are not drawn.
        runs, words, per, paths: as for ``box_plot``.

    Raises:
        OutputError: it cannot be written.
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
        at, ticks = 0.0, []
        for name in names:
            ticks.append(at + (len(later) - 1) / 2)
            for k in range(len(later)):
                _difference_row(
                    ax,
                    at + k,
                    groups[name][[0, k + 1]],
                    intervals[name][k],
                    COLOURS[(k + 1) % len(COLOURS)],
                )
            at += len(later) + 0.6
        ax.set_yticks(ticks, names)
        ax.set_ylim(at - 0.5, -0.9)
        ax.set_xlabel(f"{words}: difference to {runs[0]}, each {per}, mean and 95 % interval")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#e4e4e4", lw=0.6)
        ax.set_axisbelow(True)
        _difference_legend(figure, later, len(groups) - len(names))
        _save(figure, paths)


def _difference_row(
    ax: Any, y: float, both: NDArray[np.float64], interval: tuple[float, float, float], colour: str
) -> None:
    first, other = both[:, np.isfinite(both).all(axis=0)]
    kept = other - first
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
    title = f"{hidden} more structures are in compare.csv" if hidden else None
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
            metadata = {"Date": None, "Creator": None} if Path(path).suffix == ".svg" else None
            figure.savefig(temporary, format=Path(path).suffix[1:], metadata=metadata)


def _draw_row(ax: Any, groups: dict[str, NDArray[np.float64]], runs: Sequence[str]) -> None:
    """One axes: a group of boxes a structure."""
    step = len(runs) + 0.8
    for number, values in enumerate(groups.values()):
        kept = values[:, np.isfinite(values).all(axis=0)]
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
    """One run's box and points at ``x``; nothing where there are no values."""
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
    title = f"a point is a {per}; box: quartiles and median" + (
        f"; {hidden} more structures are in compare.csv" if hidden else ""
    )
    figure.legend(
        handles=boxes,
        loc="outside upper center",
        ncols=min(len(runs), 4),
        frameon=False,
        title=title,
        title_fontsize=8,
    )

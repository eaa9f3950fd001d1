"""The report's plots as SVG: curves, points and Bland-Altman plots of volumes.

Text and axes take the text colour of the page, so that plots suit a dark and a light page. The
module knows plain lists of numbers, and no run.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .colours import on_page

INK = "#123457"  # placeholder that is replaced by the page's text colour
FEW_POINTS = 30  # of a line; up to this number, each point is marked


def plot_svg(
    lines: Sequence[tuple[str, list[float], list[float], str, str]],
    y_name: str,
    limits: tuple[float, float] | None = None,
    x_name: str = "step",
    x_log: bool = False,
) -> str:
    """An SVG element with lines or points, for an HTML page.

    Args:
        lines: (name, x, y, colour, style) of each line. The style is a line style of matplotlib, or
            "o" for points; the colour ``INK`` becomes the page's text colour; a line with the name
            "" is not in the legend.
        y_name, x_name: labels of the axes.
        limits: lowest and highest y; None fits the data.
        x_log: whether the x axis is logarithmic.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_settings(f"{y_name}{len(lines)}")):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        ax = figure.subplots()
        for name, x, y, colour, style in lines:
            look: dict[str, Any] = (
                {"ls": "none", "marker": "o", "ms": 4, "alpha": 0.75}
                if style == "o"
                else {
                    "ls": style,
                    "lw": 1.5,
                    "marker": "o" if len(x) <= FEW_POINTS else "",
                    "ms": 2.6,
                }
            )
            ax.plot(x, y, color=colour, label=name or "_hidden", **look)
        if x_log:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
            ax.xaxis.set_minor_formatter(lambda value, place: "")
        ax.set(xlabel=x_name, ylabel=y_name)
        if limits:
            ax.set_ylim(limits)
        ax.spines[["top", "right"]].set_visible(False)
        if any(name for name, *_ in lines):
            ax.legend(frameon=False, fontsize=8)
        return _svg(figure)


@dataclass(frozen=True)
class BlandAltman:
    """Agreement of two measurements of the same cases (Bland & Altman, Lancet 1986).

    Args:
        name, colour: name and colour of the structure.
        mean: of each case, the mean of both measurements.
        difference: of each case, the second measurement minus the first.
        bias: the mean difference.
        low, high: the limits of agreement, bias ± 1.96 standard deviations.
    """

    name: str
    colour: str
    mean: list[float]
    difference: list[float]
    bias: float
    low: float
    high: float


def agreement_svg(panel: BlandAltman, unit: str) -> str:
    """An SVG element of the Bland-Altman plot of one structure, with axes of its own, because
    structures differ much in size.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_settings(panel.name)):
        figure = Figure(figsize=(3.3, 2.5), layout="constrained")
        ax = figure.subplots()
        # Thin line: no difference. Thick line: the bias. Dashed lines: the limits of agreement.
        ax.axhline(0, color=INK, lw=0.5)
        ax.axhline(panel.bias, color=INK, lw=1.1)
        for limit in (panel.low, panel.high):
            ax.axhline(limit, color=INK, lw=0.8, ls="--")
        ax.plot(
            panel.mean,
            panel.difference,
            ls="none",
            marker="o",
            ms=3.4,
            mew=0,
            alpha=0.75,
            color=panel.colour,
        )
        ax.set_title("\n".join(textwrap.wrap(panel.name, 34)), fontsize=9)
        ax.set_xlabel(f"mean of true and predicted, {unit}")
        ax.set_ylabel(f"predicted minus true, {unit}")
        ax.locator_params(nbins=5)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(y=0.15)
        return _svg(figure)


def _settings(salt: str) -> Any:
    """matplotlib's settings; ``salt`` makes the identifiers in the SVG reproducible."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "font.size": 9,
        "font.family": "sans-serif",
    }


def _svg(figure: Any) -> str:
    """The figure's <svg> element, without the XML header, in the page's text colour."""
    text = io.StringIO()
    figure.savefig(
        text,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: on_page(found[0]), svg)

"""Plain data as text for people: numbers with their significant digits, durations, names.

Reports, tables and plots use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def flattened(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as one dict with dotted keys.

    Lists of several dicts are numbered from 1, a list of one dict is not; other lists are kept.
    """
    items: Iterable[tuple[Any, Any]] = (
        data.items() if isinstance(data, dict) else enumerate(data, start=1)
    )
    out: dict[str, Any] = {}
    for key, value in items:
        name = (
            prefix.removesuffix(".")
            if isinstance(data, list) and len(data) == 1
            else f"{prefix}{key}"
        )
        if isinstance(value, dict) or (
            isinstance(value, list) and value and isinstance(value[0], dict)
        ):
            out |= flattened(value, f"{name}.")
        else:
            out[name] = value
    return out


def value_text(value: Any) -> str:
    """A value of a file as text: "yes", six digits, "1 × 2 × 3" for short lists, "–" for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        flat = all(not isinstance(v, list) for v in value)
        return (
            " × ".join(value_text(v) for v in value)
            if flat and 1 < len(value) <= 3 and all(isinstance(v, int | float) for v in value)
            else ", ".join(value_text(v) for v in value)
            if flat
            else "; ".join(value_text(v) for v in value)
        )
    return "–" if value is None else str(value)


# Replacements in this order; the unit endings must come before the single underscore.
_SPELLED = (
    ("_percentile", " percentile"),
    ("_mm", " (mm)"),
    ("_ml", " (ml)"),
    ("_percent", " (%)"),
    ("_", " "),
    (".", " "),
    ("dice", "Dice"),
    ("iou", "IoU"),
    ("cl Dice", "clDice"),
    ("hd95", "HD95"),
    ("assd", "ASSD"),
    ("lesion f1", "lesion F1"),
)


def spelled(name: str) -> str:
    """A key of a file as words: "volume_ml" -> "volume (ml)"."""
    for written, words in _SPELLED:
        name = name.replace(written, words)
    return name


def joined(names: list[str], most: int) -> str:
    """The names as an English list, with at most ``most`` items; "none" without any.

    >>> joined(["liver", "spleen", "aorta"], 2), joined([], 2)
    ('liver and 2 more structures', 'none')
    """
    if not names:
        return "none"
    shown = (
        names
        if len(names) <= most
        else [*names[: most - 1], f"{len(names) - most + 1} more structures"]
    )
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def decimals(value: Any, digits: int = 3) -> str:
    """A finite number with ``digits`` decimals, else "–"."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def number_text(value: Any) -> str:
    """A finite number with three or four significant digits, else "–"."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return (
        f"{value:.0f}"
        if abs(value) >= 1000
        else f"{value:.4g}"
        if abs(value) >= 100
        else f"{value:.3g}"
    )


def duration(seconds: float) -> str:
    """Seconds as text in s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def data_size(size_bytes: float) -> str:
    """Bytes as text in kB, MB or GB (powers of 1000).

    >>> data_size(1_234_567_890)
    '1.2 GB'
    """
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def hex_colour(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{c:02x}" for c in colour)


def mean_distance(summary: Mapping[str, Any]) -> str:
    """The mean of a metric and its number of infinite values: "1.250 (2 infinite)"."""
    infinite = summary.get("infinite") or 0
    return decimals(summary["mean"]) + (f" ({infinite} infinite)" if infinite else "")

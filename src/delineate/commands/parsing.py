"""Values as people write them on the command line: times, amounts of memory, spacings, lists."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.errors import UsageError


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h30m", "2d" or a bare number of seconds.

    Raises:
        UsageError: another form.

    >>> parse_duration("1h30m")
    5400.0
    """
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    if (
        not parts
        or "".join(n + u for n, u in parts) != text
        or (len(parts) > 1 and any(not u for _, u in parts))
    ):
        raise UsageError(f"a time is written like 90s, 10m, 1h30m or 2d, found {text!r}")
    return sum(float(n) * units[u] for n, u in parts)


def parse_bytes(text: str) -> int:
    """Bytes of "4G", "500M", "1.5 GiB" (powers of 1024) or a bare number of bytes.

    Raises:
        UsageError: another form.

    >>> parse_bytes("500M")
    524288000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"an amount of memory is written like 4G or 500M, found {text!r}")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def parse_whole_numbers(texts: Sequence[str]) -> tuple[int, ...]:
    """(255, -1) of ["255", "-1"] or ["255,-1"].

    Raises:
        UsageError: anything else.
    """
    parts = [part for text in texts for part in text.split(",")]
    try:
        return tuple(int(part) for part in parts)
    except ValueError as error:
        raise UsageError(
            f"expected whole numbers such as 255, found {','.join(parts)!r}"
        ) from error


def parse_channels(texts: Sequence[str]) -> dict[str, str]:
    """{"flair": "a.nii.gz", "t1": "b.nii.gz"} of ["flair=a.nii.gz,t1=b.nii.gz"]; a comma in a
    file's name is part of the name.

    Raises:
        UsageError: another form, or a channel that is given twice.
    """
    found: dict[str, str] = {}
    for part in (part for text in texts for part in re.split(r",(?=[^,=/]+=)", text)):
        name, _, value = (word.strip() for word in part.partition("="))
        if not name or not value or name in found:
            problem = (
                f"gives {name} twice"
                if name in found
                else f"is written like flair=a.nii.gz,t1=b.nii.gz, found {part!r}"
            )
            raise UsageError(f"--channels {problem}")
        found[name] = value
    return found


def parse_spacing(text: str) -> tuple[float, ...]:
    """(0.5, 0.5, 2.0) of "0.5,0.5,2" or "0.5x0.5x2".

    Raises:
        UsageError: not two or three positive numbers.
    """
    try:
        values = tuple(float(v) for v in re.split(r"[,x ]+", text.strip()))
    except ValueError:
        values = ()
    if len(values) not in (2, 3) or min(values) <= 0:
        raise UsageError(
            f"a spacing is two or three positive numbers in mm, such as 0.5,0.5,2, found {text!r}"
        )
    return values


def parse_window(text: str) -> tuple[float, float]:
    """(-200.0, 200.0) of "-200,200".

    Raises:
        UsageError: not two numbers, the lower one first.
    """
    try:
        low, high = (float(v) for v in text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise UsageError(
            f"a window is its lowest and its highest intensity, such as -200,200, found {text!r}"
        )
    return low, high


def parse_rectangles(texts: Sequence[str]) -> tuple[tuple[int, int, int, int], ...]:
    """((0, 0, 640, 60),) of ["0,0,640,60"].

    Raises:
        UsageError: not four whole numbers, left before right and top before bottom.
    """
    found = []
    for text in texts:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 4 or not all(part.isdecimal() for part in parts):
            parts = ["0"] * 4
        left, top, right, bottom = map(int, parts)
        if left >= right or top >= bottom:
            raise UsageError(
                f"an area is LEFT,TOP,RIGHT,BOTTOM in pixels, such as 0,0,640,60, found {text!r}"
            )
        found.append((left, top, right, bottom))
    return tuple(found)


def parse_names(text: str) -> tuple[str, ...]:
    """("liver", "spleen") of "liver, spleen".

    >>> parse_names("liver, spleen")
    ('liver', 'spleen')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_lower_names(text: str) -> tuple[str, ...]:
    """As ``parse_names``, in small letters."""
    return parse_names(text.lower())


def parse_folds(text: str) -> tuple[int, ...]:
    """(0, 1) of "0,1".

    Raises:
        UsageError: not whole numbers from 0.
    """
    names = parse_names(text)
    if not all(name.isdigit() for name in names):
        raise UsageError(f"folds are numbers such as 0,1,2, found {text!r}")
    return tuple(int(name) for name in names)

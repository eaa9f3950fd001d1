"""The report of an archive: volumes of all results by scanner, year, sex and age, and outliers.

One HTML page without scripts and other files. It knows numbers and what the records state of a
scan; it opens none.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MOST_GROUPS = 40  # of one column
OTHERS = "others"
OLDEST = 90  # ages from here on are one group
OF_NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


@dataclass(frozen=True)
class Outlier:
    """A volume far from the others: of which case and structure, in ml; the median of all; and how
    many standard deviations apart, by the median absolute deviation.
    """

    case: str
    structure: str
    volume_ml: float
    median_ml: float
    far: float


class Volumes:
    """The volumes of each structure, in ml, of all results and of each group.

    >>> volumes = Volumes(["liver"])
    >>> for age, ml in ((41, 1500.0), (47, 1700.0), (93, 1200.0)):
    ...     volumes.add({"age": age}, {"liver": ml})
    >>> volumes.table("age")
    [('40 to 49', 2, ['1600 (1550 to 1650)']), ('90 and over', 1, ['1200 (1200 to 1200)'])]
    """

    def __init__(self, structures: Sequence[str]):
        self.structures = list(structures)
        self._all: dict[str, array[float]] = {name: array("f") for name in structures}
        self._groups: dict[tuple[str, str], dict[str, array[float]]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._number: dict[str, int] = {}

    def add(self, about: Mapping[str, Any], volumes_ml: Mapping[str, float | None]) -> None:
        """Add a result, with what is known of its scan."""
        places = [self._all]
        for column, value in about.items():
            key = (column, _group(column, value))
            if key not in self._groups:
                if self._number.get(column, 0) >= MOST_GROUPS:
                    key = (column, OTHERS)
                else:
                    self._number[column] = self._number.get(column, 0) + 1
            self._counts[key] = self._counts.get(key, 0) + 1
            new = {name: array("f") for name in self.structures}
            places.append(self._groups.setdefault(key, new))
        for name in self.structures:
            if (value := volumes_ml.get(name)) is not None:
                for place in places:
                    place[name].append(value)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Structure -> median and robust standard deviation of its volumes; without volumes it is
        left out.
        """
        found = {}
        for name, values in self._all.items():
            if len(values):
                volumes = np.frombuffer(values, np.float32)
                middle = float(np.median(volumes))
                spread = OF_NORMAL * float(np.median(np.abs(volumes - middle)))
                found[name] = (middle, spread)
        return found

    def whole(self) -> list[tuple[str, int, str]]:
        """Structure, number of volumes, and their quartiles, of all results."""
        return [(name, len(v), _quartiles(v)) for name, v in self._all.items()]

    def columns(self) -> list[str]:
        """What is known of scans: "scanner", "year" ..."""
        return sorted({column for column, _ in self._groups})

    def table(self, column: str) -> list[tuple[str, int, list[str]]]:
        """Group, number of results, and quartiles of each structure."""
        keys = sorted(key for key in self._groups if key[0] == column)
        return [
            (key[1], self._counts[key], [_quartiles(v) for v in self._groups[key].values()])
            for key in keys
        ]


class Machines:
    """Seconds of each result by the machine that made it.

    >>> machines = Machines()
    >>> for seconds in (2.0, 4.0, 4.0):
    ...     machines.add("one", seconds)
    >>> machines.table()
    [('one', 3, '4 (3 to 4)')]
    """

    def __init__(self) -> None:
        self._seconds: dict[str, array[float]] = {}

    def add(self, machine: str, seconds: float | None) -> None:
        """Add a result; one without a machine, or without seconds, is left out."""
        if machine and isinstance(seconds, int | float):
            is_known = machine in self._seconds or len(self._seconds) < MOST_GROUPS
            self._seconds.setdefault(machine if is_known else OTHERS, array("f")).append(seconds)

    def table(self) -> list[tuple[str, int, str]]:
        """Machine, number of results, and quartiles of their seconds."""
        return [(name, len(v), _quartiles(v)) for name, v in sorted(self._seconds.items())]


def _group(column: str, value: Any) -> str:
    if column == "age":
        try:
            years = int(float(value))
        except (TypeError, ValueError, OverflowError):
            return str(value)
        if years >= OLDEST:
            return f"{OLDEST} and over"
        return f"{years // 10 * 10} to {years // 10 * 10 + 9}"
    return str(value)


def _quartiles(values: array[float]) -> str:
    if not len(values):
        return ""
    low, middle, high = np.quantile(np.frombuffer(values, np.float32), (0.25, 0.5, 0.75))
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def render(
    volumes: Volumes,
    machines: Machines,
    outliers: Sequence[tuple[Outlier, str]],
    record: Mapping[str, Any],
    done: int,
    failed: int,
) -> str:
    """The page.

    Args:
        volumes: of all results.
        machines: that made them.
        outliers: each with its picture, a PNG in base64, or "".
        record: the head of ``predictions.json``.
        done, failed: numbers of cases.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("archive.html.jinja")
    return page.render(
        volumes=volumes,
        machines=machines.table(),
        outliers=outliers,
        model=record.get("model", ""),
        bundle=record.get("bundle", ""),
        done=done,
        failed=failed,
    )

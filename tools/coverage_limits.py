"""Fail if the tests cover less of the package than they have to; print nothing otherwise.

    python tools/coverage_limits.py [--table]

Reads the data that ``make coverage`` leaves in .coverage, also of processes that the tests start,
unless they are killed. Code that numba compiles is not counted. ``--table`` prints the figure of
each package.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePath

from coverage import Coverage

# Percent of lines and branches. What reads, keeps and schedules data is held higher than the rest.
ALL = "delineate"
LIMITS = {ALL: 85.0, "core": 95.0, "formats": 95.0, "execution": 95.0}


def count(files: list[str]) -> dict[str, tuple[int, int]]:
    """File -> how many of its lines and branches are covered, and how many it has."""
    if not files:
        return {}
    data = Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        data.json_report(morfs=files, outfile=str(path))
        found = json.loads(path.read_text(encoding="utf-8"))["files"]
    return {
        name: (
            one["summary"]["covered_lines"] + one["summary"]["covered_branches"],
            one["summary"]["num_statements"] + one["summary"]["num_branches"],
        )
        for name, one in found.items()
    }


def count_all() -> dict[str, tuple[int, int]]:
    """``count`` of all files with data."""
    data = Coverage()
    data.load()
    files = sorted(data.get_data().measured_files())
    parts = min(os.cpu_count() or 1, 8)
    with ProcessPoolExecutor(parts) as pool:
        counted = pool.map(count, [files[part::parts] for part in range(parts)])
        return {name: both for part in counted for name, both in part.items()}


def by_package(counted: dict[str, tuple[int, int]]) -> dict[str, dict[str, tuple[int, int]]]:
    """Package -> its modules, counted; the whole is the package "delineate"."""
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for name, both in counted.items():
        parts = PurePath(name).parts
        inside = parts[parts.index(ALL) + 1 :]
        for package in {ALL, inside[0] if len(inside) > 1 else ALL}:
            found[package]["/".join(inside)] = both
    return found


def percent(counts: Iterable[tuple[int, int]]) -> float:
    """How much is covered of everything; 100 of nothing."""
    covered, everything = map(sum, zip((0, 0), *counts, strict=True))
    return 100 * covered / everything if everything else 100.0


def failures(found: dict[str, dict[str, tuple[int, int]]]) -> list[str]:
    """What falls short: of each package, its ten worst modules and its figure."""
    lines = []
    for package, least in LIMITS.items():
        modules = found.get(package, {})
        if not modules:
            lines.append(f"{package}: nothing was measured, at least {least:g} %")
        elif (reached := percent(modules.values())) < least:
            worst = sorted(modules.items(), key=lambda item: item[1][0] - item[1][1])[:10]
            lines += [f"  {name}: {n - covered} of {n} not covered" for name, (covered, n) in worst]
            lines.append(f"{package}: {reached:.2f} % covered, at least {least:g} %")
    return lines


def main() -> int:
    found = by_package(count_all())
    if "--table" in sys.argv[1:]:
        for package, modules in sorted(found.items()):
            print(f"{package:15s} {percent(modules.values()):6.2f} %")
    if failed := failures(found):
        print(*failed, sep="\n")
        print(
            "Counted in lines and branches; `coverage report -m` shows which. Only the files in"
            " tests/measured.txt are measured."
        )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

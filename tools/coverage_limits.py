"""Fail if the tests cover less of the package than they have to; print nothing otherwise.

    python tools/coverage_limits.py

Reads the data that ``make coverage`` leaves in .coverage, also of processes that the tests start,
unless they are killed. Code that numba compiles is not counted.
"""

from __future__ import annotations

import io
import sys

from coverage import Coverage

# Percent of lines and branches. What reads, keeps and schedules data is held higher than the rest.
LIMITS = {"*": 85.0, "*/core/*": 95.0, "*/formats/*": 95.0, "*/execution/*": 95.0}


def main() -> int:
    data = Coverage()
    data.load()
    missed = False
    for files, least in LIMITS.items():
        table = io.StringIO()
        percent = data.report(include=[files], show_missing=True, skip_covered=True, file=table)
        if percent < least:
            missed = True
            print(f"{table.getvalue()}\n{files}: {percent:.1f} % covered, at least {least:g} %")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

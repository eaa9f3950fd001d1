"""The tables of docs/reference/damaged-files.md, which state what becomes of every damaged file.

    python -m benchmarks.faults.page

writes them; tests/formats/test_damaged_files.py fails if they are out of date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from .compare import OURS, RESULTS, VERDICTS
from .every import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "damaged-files.md"


def page() -> str:
    """The introduction, as it is in the page, and the tables."""
    introduction = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    return "\n".join([introduction, *_readers(), *_tables()])


def _readers() -> Iterator[str]:
    """What other readers make of the files of their formats, and ours of the same."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    yield "## Compared with other readers\n"
    yield (
        "Files of the formats that each one reads; after the slash, what delineate makes of the\n"
        'same files. A refusal is any exception; "hangs" is more than 5 s of computing or 30 s on\n'
        "the clock of a busy machine. Measured by `python -m benchmarks.faults.compare`.\n"
    )
    yield f"| | {' | '.join(VERDICTS)} |\n|---|{'---|' * len(VERDICTS)}"
    for name, one in found.items():
        if name != OURS:
            both = [
                f"{_sum(one, one, verdict)} / {_sum(found[OURS], one, verdict)}"
                for verdict in VERDICTS
            ]
            yield f"| {name} {one['version']} | {' | '.join(both)} |"
    yield ""


def _sum(reader: Mapping[str, Any], other: Mapping[str, Any], verdict: str) -> int:
    """The number of files with a verdict, of the formats of ``other``."""
    return sum(reader["formats"][form][verdict] for form in other["formats"])


def _tables() -> Iterator[str]:
    ordered = sorted(FAULTS, key=lambda one: one.form.lower())
    for form, faults in groupby(ordered, key=lambda one: one.form):
        yield f"## {form}\n\n| file | |\n|---|---|"
        for one in faults:
            yield f"| {one.what.replace('|', ' ')} | {'read' if one.accepted else 'refused'} |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

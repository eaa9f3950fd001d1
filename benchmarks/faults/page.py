"""The tables of docs/reference/damaged-files.md, which state what becomes of every damaged file.

    python -m benchmarks.faults.page

writes them; tests/formats/test_damaged_files.py fails if they are out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from .every import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "damaged-files.md"


def page() -> str:
    """The introduction, as it is in the page, and the tables."""
    introduction = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    return "\n".join([introduction, *_tables()])


def _tables() -> Iterator[str]:
    ordered = sorted(FAULTS, key=lambda one: one.form.lower())
    for form, faults in groupby(ordered, key=lambda one: one.form):
        yield f"## {form}\n\n| file | |\n|---|---|"
        for one in faults:
            yield f"| {one.what.replace('|', ' ')} | {'read' if one.accepted else 'refused'} |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

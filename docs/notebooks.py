"""Runs the notebooks of ``docs/tutorials``: for the site, and for the tests.

The notebooks are kept without outputs. This module executes their code cells from top to bottom in
this process, in an empty folder, and returns what each cell prints and the value of its last line.
It needs no Jupyter. The site shows the outputs, and offers the executed notebook for download.

A cell that reproduces a fault of a tutorial marks it:

    rate_steps = slices  # fault
    # corrected: rate_steps = 1

``corrected`` gives the cell with the correction; its assertion must then fail.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAULT = re.compile(r"^( *)[^\n]*  # fault\n((?: *# corrected: [^\n]*\n?)+)", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook, and its output after a run."""

    kind: str  # "markdown" or "code"
    text: str
    output: str = ""
    png: bytes = b""  # the figure that its last line names

    @property
    def has_fault(self) -> bool:
        return self.kind == "code" and "# fault" in self.text


def read(path: Path) -> list[Cell]:
    """The cells of a notebook."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Cell(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def corrected(text: str) -> str:
    """The text of a cell with the correction in the place of its fault."""

    def correction(found: re.Match[str]) -> str:
        lines = re.findall(r"# corrected: ([^\n]*)", found[2])
        return "".join(f"{found[1]}{line}\n" for line in lines)

    changed, count = FAULT.subn(correction, text)
    if count != 1:
        raise ValueError(f"found {count} faults with a correction, expected one: {text}")
    return changed


def run(path: Path, before: Callable[[Cell, dict[str, Any]], None] | None = None) -> list[Cell]:
    """The cells of a notebook with their outputs.

    Args:
        path: the notebook.
        before: called with each code cell and the variables just before it runs.
    """
    variables: dict[str, Any] = {"__name__": "__main__"}
    # Windows keeps files that are still open.
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with scratch as folder, contextlib.chdir(folder):
        return [_run(cell, variables, before) for cell in read(path)]


def _run(
    cell: Cell, variables: dict[str, Any], before: Callable[[Cell, dict[str, Any]], None] | None
) -> Cell:
    if cell.kind != "code":
        return cell
    if before is not None:
        before(cell, variables)
    try:
        return Cell(cell.kind, cell.text, *execute(cell.text, variables))
    except Exception as error:
        error.add_note(f"in the cell\n{cell.text}")
        raise


def execute(text: str, variables: dict[str, Any]) -> tuple[str, bytes]:
    """Run the code; return what it prints and, as in a notebook, the value of a last expression: a
    figure of Matplotlib as PNG, anything else as text.
    """
    tree, last = ast.parse(text), None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    printed, drawn = io.StringIO(), io.BytesIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), variables)
        value = None if last is None else eval(compile(last, "<cell>", "eval"), variables)
        if hasattr(value, "savefig"):
            value.savefig(drawn, format="png", dpi=80, bbox_inches="tight")
        elif value is not None:
            print(repr(value))
    return printed.getvalue(), drawn.getvalue()


def markdown(cells: list[Cell]) -> str:
    """The cells as a part of a page: headings one level lower, outputs below the code."""
    parts = []
    for cell in cells:
        if cell.kind == "markdown":
            # The page has its own title.
            parts.append(re.sub(r"^# .*\n+", "", re.sub(r"^##", "###", cell.text, flags=re.M)))
        else:
            parts.append(f"```python\n{cell.text}\n```")
            if cell.output:
                parts.append(f'```text title="output"\n{cell.output.rstrip()}\n```')
            if cell.png:
                parts.append(f"![The figure of the cell](data:image/png;base64,{_base64(cell)})")
    return "\n\n".join(part for part in parts if part)


def executed(path: Path, cells: list[Cell]) -> str:
    """The notebook's JSON with the outputs of its cells."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for number, (written, cell) in enumerate(zip(content["cells"], cells, strict=True), start=1):
        if cell.kind == "code":
            written["execution_count"] = number
            written["outputs"] = list(_outputs(cell))
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _outputs(cell: Cell) -> Iterator[dict[str, Any]]:
    """The outputs of a cell, in the form of a notebook."""
    if cell.output:
        lines = cell.output.splitlines(keepends=True)
        yield {"output_type": "stream", "name": "stdout", "text": lines}
    if cell.png:
        data = {"image/png": _base64(cell)}
        yield {"output_type": "display_data", "data": data, "metadata": {}}


def _base64(cell: Cell) -> str:
    return base64.b64encode(cell.png).decode("ascii")

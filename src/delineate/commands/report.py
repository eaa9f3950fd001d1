"""Report: a run or an evaluation as one page to read, print and archive."""

from __future__ import annotations

from pathlib import Path

from ..cohorts.discovery.originals import originals
from ..core.atomic import recording, remove_temporaries_of, write_text
from ..core.errors import UsageError
from ..core.inputs import expecting
from ..core.outputs import Originals
from ..reporting.html_report import render
from ..reporting.reported_run import RUN, ReportedRun
from .options import ReportOptions

PAGES = (".html", ".htm")


def report(
    run: str | Path, out: str | Path | None = None, options: ReportOptions = ReportOptions()
) -> Path:
    """Write the report of ``run``.

    Args:
        run: the folder of a training run, with any of its files missing, or of an evaluation.
        out: the HTML file; None writes ``report.html`` to that folder.
        options: an interactive report is some megabytes large, with a script in it.

    Returns:
        The file written.

    Raises:
        InputError: no such folder, a damaged file in it, or no cases for ``interactive``.
        UsageError: ``out`` has another ending than a page.
        OutputError: the page cannot be written.
    """
    from ..viewer.page import run_page

    found = ReportedRun.load(Path(run))
    target = Path(out) if out is not None else found.folder / "report.html"
    if target.suffix.lower() not in PAGES:
        raise UsageError(
            f"a report is an HTML page; its name must end in {' or '.join(PAGES)}", path=target
        )
    with expecting(RUN, found.folder):
        read_files = _originals(found)
    for read in read_files:
        read.refuse([target])
    with recording(target.parent, [target], options.overwrite):
        remove_temporaries_of(target)
        page = run_page(found.folder) if options.interactive else None
        write_text(target, render(found, page))
    return target


def _originals(run: ReportedRun) -> tuple[Originals, Originals]:
    """The files that a report reads: the scans and masks of its cases, and the run's files except
    pages.
    """
    cases = (run.scores or {}).get("cases", [])
    named = [case[side] for case in cases for side in ("prediction", "truth") if case.get(side)]
    scans = originals([] if run.manifest is None else [run.manifest], named)
    return scans, Originals([run.folder], lambda path, folder: path.suffix.lower() not in PAGES)

"""Check: what a folder contains, what is wrong with it, and what can be repaired.

Finds the cases (``cohorts.discovery.layouts``), examines each once (``cohorts.checks.doctor``),
compares them, and writes ``manifest.jsonl``, ``findings.json`` and, on request, repaired copies
(``cohorts.checks.repair``). Findings are data; only ``table`` knows how they are shown.

A shard examines its cases and keeps the examinations in the folder; the call without ``--shard``
joins them (``execution.kept``), compares all cases, and writes and repairs.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cohorts.checks import doctor, repair
from ..cohorts.checks.across_cases import compare, looks_like_ct
from ..cohorts.checks.across_truths import compare_truths
from ..cohorts.checks.alignment import Fit
from ..cohorts.checks.copies import Details
from ..cohorts.discovery.account import FileGroup, account_for
from ..cohorts.discovery.account import lines as file_lines
from ..cohorts.discovery.drafts import DraftedDescription, draft
from ..cohorts.discovery.layouts import discover
from ..cohorts.discovery.layouts.dicom_draft import draft_of_labels
from ..cohorts.discovery.originals import originals, originals_in
from ..cohorts.splitting import SplitRule, is_ratio, lines, lists_of, read_split
from ..core import atomic
from ..core.errors import UsageError
from ..core.grid import Grid
from ..core.manifest import Case, Manifest
from ..core.outputs import refuse_foreign
from ..core.progress import Progress, silent
from ..core.scores import without_nan
from ..execution.kept import Kept
from ..execution.local import workers_for
from ..extend.findings import SEVERITIES, DiscoveredCohort, Finding
from .options import CheckOptions, found_by, reads_images

BYTES_A_SECOND = 20e6  # of compressed files that one process reads and examines, about
SECONDS_A_FILE = 0.002
WRITTEN = ("findings.json", "manifest.jsonl")
SPLIT_FILE = "split.json"  # written too if there is a split
SHOWN = 3  # different messages in the table for each kind of finding


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Args:
        manifest: all cases found.
        findings: errors first, then warnings, then notes.
        usable: the cases without an error; after ``fix`` those of the repaired cohort.
        mended: number of repaired copies.
        split: where the sides of ``usable`` come from, if the options state them.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]
    usable: Manifest
    mended: int = 0
    split: str = ""


@reads_images
def check(
    data: str | Path,
    out: str | Path | None = None,
    options: CheckOptions = CheckOptions(),
    *,
    progress: Progress = silent,
) -> CheckReport:
    """Find and examine the cases at ``data``.

    Args:
        data: see ``cohorts.discovery.layouts.discover``.
        out: folder for ``manifest.jsonl`` (the usable cases) and ``findings.json``; None writes
            nothing.
        options: see ``commands.options``; repaired copies have a manifest and ``changes.json``.
        progress: see ``core.progress``.

    Returns:
        The report; that of a shard has its cases and what is found in each of them alone.

    Raises:
        InputError, LayoutError, LabelError, UsageError: no cohort can be made of ``data``.
        OutputError: ``out`` or ``fix`` cannot be written, or an output is a file that is read.
    """
    fix, work = options.fix, options.work
    _refuse_parts(out, options)
    split = str(options.split or "")
    rule = read_split(split) if split else SplitRule("")
    found = discover(data, **found_by(options))
    manifest = found.manifest
    given = [options.description, options.labels, data if Path(data).is_file() else None]
    given += [split] if split and not is_ratio(split) else []
    # Before the files are read: a ratio may not fit the number of patients.
    divided = rule.divide(manifest, options.seed) if split else manifest
    kept = originals([manifest], given)
    targets = _targets(manifest, out, fix)
    for folder, paths in targets.items():
        kept.refuse(paths)
        refuse_foreign(folder, paths, options.overwrite)
    kept_here = _kept(None if out is None else Path(out))
    if not work.shard.is_whole:
        with kept.kept():
            return _part(found, kept_here, options, progress)
    checked = _examined(found, kept_here, options, progress)
    with kept.kept(), _recording(targets, options.overwrite):
        if fix is not None:
            checked = _fix(checked, fix, options)
        if split:
            about = f"{split}, seed {options.seed}" if rule.shares else split
            checked = replace(checked, usable=checked.usable.like(divided), split=about)
        if out is not None:
            _write(checked, out)
    kept_here.forget(work)
    return checked


def _examined(
    found: DiscoveredCohort, kept: Kept, options: CheckOptions, progress: Progress
) -> CheckReport:
    """The report of all cases, before anything is repaired."""
    examinations, failures = _examine(found.manifest, kept, options, progress)
    manifest, assumed = _with_modality(found.manifest, examinations)
    read = [path for path in (options.description, options.labels, *found.settings) if path]
    groups = account_for(manifest, read)
    manifest = replace(manifest, files=tuple(one.to_json() for one in groups))
    compared = compare(examinations)
    findings = [
        *found.findings,
        *assumed,
        *failures,
        *(f for e in examinations for f in e.findings),
        *compared,
        *compare_truths(examinations, manifest, compared),
    ]
    return CheckReport(manifest, _sorted(findings), _without(manifest, findings))


def _refuse_parts(out: str | Path | None, options: CheckOptions) -> None:
    """Check that a shard has a folder for its examinations and does not repair.

    Raises:
        UsageError: see above.
    """
    if options.work.shard.is_whole:
        return
    if out is None:
        raise UsageError(
            "--shard keeps its examinations in the folder of the results: give it (-o)"
        )
    if options.fix is not None:
        raise UsageError(
            "--fix repairs what is found in all cases together: give it without --shard, in the "
            "call that joins the shards"
        )


def _kept(folder: Path | None) -> Kept:
    """The examinations that shards keep in ``folder``."""
    classes = (doctor.Examination, doctor.ChannelStatistics, Details, Finding, Fit, Grid)
    return Kept(folder, "examinations.jsonl", classes)


def _part(
    found: DiscoveredCohort, kept: Kept, options: CheckOptions, progress: Progress
) -> CheckReport:
    """The report of a shard."""
    manifest, shard = found.manifest, options.work.shard
    own = manifest.only(case for case in manifest if shard.has(case.id))
    examinations, failures = _examine(own, kept, options, progress)
    note = (
        f"{shard}: {len(own)} of {len(manifest)} cases are examined; check without --shard joins "
        "all shards, compares their cases, and writes the manifest"
    )
    findings = [
        Finding("", "shard", "note", note),
        *(one for one in found.findings if one.case and shard.has(one.case)),
        *failures,
        *(f for e in examinations for f in e.findings),
    ]
    return CheckReport(own, _sorted(findings), _without(own, findings))


def _targets(
    manifest: Manifest, out: str | Path | None, fix: str | Path | None
) -> dict[Path, list[Path]]:
    """Folder -> every file that may be written to it.

    Raises:
        OutputError: ``fix`` contains originals.
    """
    found: dict[Path, list[Path]] = defaultdict(list)
    if out is not None:
        found[Path(out)] += [Path(out) / name for name in (*WRITTEN, SPLIT_FILE)]
    if fix is not None:
        repair.refuse_originals(manifest, fix)
        found[Path(fix)] += repair.targets(manifest, fix)
    return found


@contextlib.contextmanager
def _recording(targets: dict[Path, list[Path]], overwrite: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for folder, paths in targets.items():
            stack.enter_context(atomic.recording(folder, paths, overwrite))
        yield


def write_draft(data: str | Path, out: str | Path, overwrite: bool = False) -> DraftedDescription:
    """Write a first YAML description of the folder ``data`` to ``out``; nothing is written if it
    would find no cases with labels. A file that is not ours is replaced only with ``overwrite``.

    Raises:
        InputError: ``data`` cannot be read. LayoutError: no description of it finds the cases.
        OutputError: ``out`` cannot be written.
    """
    originals_in(data).refuse([out])
    folder = Path(out).parent
    refuse_foreign(folder, [out], overwrite)
    drafted = draft_of_labels(data) or draft(data)
    with atomic.recording(folder, [out], overwrite):
        atomic.write_text(out, drafted.text)
    return drafted


def _examine(
    manifest: Manifest, kept: Kept, options: CheckOptions, progress: Progress
) -> tuple[list[doctor.Examination], list[Finding]]:
    header = replace(manifest, cases=())
    jobs = [(case, header) for case in manifest]
    workers, work = options.workers, options.work
    if workers is None and work.is_local:
        workers = workers_for(_seconds(manifest.cases), len(jobs))
    outcomes = kept.run(
        work,
        doctor.examine,
        jobs,
        names=[c.id for c in manifest],
        workers=workers,
        stage="check",
        progress=progress,
    )
    failures = [
        Finding(o.name, "failed", "error", str(o.error), {"log": o.log})
        for o in outcomes
        if o.error is not None
    ]
    return [o.value for o in outcomes if o.value is not None], failures


def _with_modality(
    manifest: Manifest, examinations: Sequence[doctor.Examination]
) -> tuple[Manifest, list[Finding]]:
    """The manifest with modality CT if its files name none and their values can only be CT, and a
    note about it.
    """
    if manifest.modality or not looks_like_ct(examinations):
        return manifest, []
    message = (
        "no file names the modality; all values are in the range of CT in HU, so the cohort is "
        "treated as CT (a description can state another modality)"
    )
    return replace(manifest, modality="CT"), [Finding("", "modality", "note", message)]


def _seconds(cases: Sequence[Case]) -> float:
    """The seconds that one process needs, estimated from the file sizes of every tenth case."""
    chosen = cases[:: max(1, len(cases) // 10)]
    paths = [
        path
        for case in chosen
        for one in (*case.images, *case.label)
        for path in _files(Path(one.path))
    ]
    spent = (
        sum(path.stat().st_size for path in paths) / BYTES_A_SECOND + len(paths) * SECONDS_A_FILE
    )
    return spent * len(cases) / max(1, len(chosen))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():  # a dangling link is reported when it is read
        return [path] if path.is_file() else []
    return [p for p in path.iterdir() if p.is_file()]


def _without(manifest: Manifest, findings: Sequence[Finding]) -> Manifest:
    bad = {f.case for f in findings if f.severity == "error"}
    return replace(manifest, cases=tuple(c for c in manifest if c.id not in bad))


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.kind, f.case)))


# ---- repair ----


def _fix(checked: CheckReport, out: str | Path, options: CheckOptions) -> CheckReport:
    errors = [f for f in checked.findings if f.severity == "error"]
    unrepairable = [f for f in errors if f.mend is None]
    repairable, patients = repair.one_patient(
        _without(checked.manifest, unrepairable),
        [f.data["patients"] for f in checked.findings if f.mend == repair.ONE_PATIENT],
    )
    ways: dict[str, list[str]] = defaultdict(list)
    for finding in checked.findings:
        if finding.mend not in (None, repair.ONE_PATIENT):
            ways[finding.case].append(finding.mend)
    jobs = repair.plan_mending(repairable, ways, out)
    outcomes = options.work.run(
        repair.mend_case, jobs, names=[job.case.id for job in jobs], workers=options.workers
    )
    failures = [o.error for o in outcomes if o.error is not None]
    changes = [o.value for o in outcomes if o.value is not None]
    usable = repair.write_mended(repairable, changes, failures, out, patients)
    findings = [
        *checked.findings,
        *(Finding(e.case or "", "mending", "error", str(e)) for e in failures),
    ]
    return replace(checked, findings=_sorted(findings), usable=usable, mended=len(changes))


# ---- output ----


def _write(checked: CheckReport, out: str | Path) -> None:
    folder = Path(out)
    findings, manifest = (folder / name for name in WRITTEN)
    atomic.write_json(findings, without_nan(to_json(checked)))
    atomic.write_text(manifest, checked.usable.to_jsonl())
    if checked.split:
        lists = lists_of(checked.usable, about=checked.split)
        atomic.write_text(folder / SPLIT_FILE, json.dumps(lists, indent=1))


def to_json(checked: CheckReport) -> dict[str, Any]:
    """The content of ``findings.json``."""
    return {
        "root": checked.manifest.root,
        "layout": checked.manifest.layout,
        "cases": len(checked.manifest),
        "usable": len(checked.usable),
        "mended": checked.mended,
        "count": {s: sum(f.severity == s for f in checked.findings) for s in SEVERITIES},
        "files": list(checked.manifest.files),
        **({"split": lists_of(checked.usable, about=checked.split)} if checked.split else {}),
        "findings": [f.to_json() for f in checked.findings],
    }


def table(checked: CheckReport) -> Any:
    """For a terminal: the cohort in two lines, a table with one row per kind of finding, and a line
    for each kind of file.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    rows = Table(box=None, padding=(0, 1), title_justify="left")
    for column in ("", "kind", "n", "what"):
        rows.add_column(column, no_wrap=column in ("kind", "n"))
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in checked.findings:
        groups[finding.severity, finding.kind].append(finding)
    colours = {"error": "red", "warning": "yellow", "note": "dim"}
    for (severity, kind), found in groups.items():
        shown = "\n".join(map(escape, _messages(found)))
        rows.add_row(f"[{colours[severity]}]{severity}[/]", kind, str(len(found)), shown)
    files = file_lines([FileGroup(**one) for one in checked.manifest.files])
    split = [f"split {checked.split}:", *lines(checked.usable)] if checked.split else []
    return Group(escape(summary(checked)), rows, *map(escape, (*files, *split)))


def _messages(found: Sequence[Finding]) -> list[str]:
    """Findings of one kind as lines: equal messages are one line."""
    cases: dict[str, list[str]] = defaultdict(list)
    for finding in found:
        cases[finding.message].append(finding.case)
    shown = list(cases.items())[:SHOWN]
    said = [f"{_names(names)}: {words}" if any(names) else words for words, names in shown]
    left = len(found) - sum(len(names) for _, names in shown)
    return [*said, f"... and {left} more in findings.json"] if left else said


def _names(cases: Sequence[str]) -> str:
    if len(cases) > 2:
        return f"{cases[0]} and {len(cases) - 1} more"
    return " and ".join(cases)


def summary(checked: CheckReport) -> str:
    """The cohort in two lines."""
    m = checked.manifest
    truth = sum(bool(c.label) for c in m)
    splits = ", ".join(
        f"{sum(c.split == s for c in m)} {s}"
        for s in ("train", "val", "test")
        if any(c.split == s for c in m)
    )
    names = ", ".join(m.labels.names[:8]) + (f" ... ({len(m.labels)})" if len(m.labels) > 8 else "")
    channels = [
        f"{name} as {unit.upper()}" if unit else name
        for name, unit in zip(m.channels, m.units, strict=True)
    ]
    lines = [
        f"{m.layout}: {len(m)} cases ({truth} with truth{'; ' + splits if splits else ''}) of "
        f"{len(m.patients)} patients; "
        f"{len(checked.usable)} usable"
        + (f", {checked.mended} repaired" if checked.mended else ""),
        f"channels: {', '.join(channels)}{' (' + m.modality + ')' if m.modality else ''}; "
        f"structures: {names or 'none'}",
    ]
    return "\n".join(lines)

"""The cohort of a training run: found and checked once, with its training, validation and test
cases fixed in ``manifest.jsonl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...cohorts.splitting import lists_of, read_split
from ...core import atomic
from ...core.errors import LayoutError
from ...core.manifest import Manifest
from ...planning.rules import VALIDATION_FOLDS
from .. import check as check_step
from .request import Request
from .run import TrainingRun

# Patients, if test patients are held out too: more would be lost to training, and validation then
# only chooses a checkpoint.
ENOUGH_TO_VALIDATE = 16


def settle_cohort(run: TrainingRun) -> tuple[Manifest, Sequence[str]]:
    """The cases of the run with their sides, and what is wrong with the others; a run that
    continues reads the manifest it began with.

    Raises:
        LayoutError: no usable case with truth, or fewer than two patients.
    """
    kept = run.folder / "manifest.jsonl"
    if kept.is_file():
        return Manifest.load(kept), ()
    manifest, failures = found_cohort(run, run.folder / "check")
    findings = (run.folder / "check" / "findings.json").read_bytes()
    atomic.write_bytes(run.folder / "findings.json", findings)
    run.save_json("split.json", _split_of(manifest, run.request))
    manifest.save_record(kept)
    tested = sum(case.split == "test" for case in manifest)
    run.say(
        f"{len(manifest)} cases of {len(manifest.patients)} patients ({manifest.layout}): "
        f"{tested} for testing, the others for training and validation"
    )
    return manifest, failures


def found_cohort(run: TrainingRun, out: Path | None) -> tuple[Manifest, Sequence[str]]:
    """The cases of a new run with their sides, and what is wrong with the others.

    Args:
        out: folder for the findings; None writes nothing.

    Raises:
        LayoutError: no usable case with truth, or fewer than two patients.
    """
    request, recipe = run.request, run.recipe
    work = run.work
    options = replace(
        request.check_options,
        engine=work.engine.text,
        case_timeout_s=work.limits.seconds,
        case_memory_bytes=work.limits.nbytes,
    )
    checked = check_step.check(request.data, out, options, progress=run.progress)
    failures = sorted(
        {f"{f.case or 'cohort'}: {f.message}" for f in checked.findings if f.severity == "error"}
    )
    manifest = checked.usable
    if request.split:
        # All patients are divided, so that a case that becomes unreadable moves no other.
        rule = read_split(request.split, request.fold)
        manifest = manifest.like(rule.divide(checked.manifest, request.seed))
    if not manifest.with_truth().cases:
        raise LayoutError(
            "no usable case with truth to train on"
            + (f"; first problem: {failures[0]}" if failures else ""),
            path=request.data,
        )
    if recipe is not None:
        manifest = recipe.adapt(manifest, bool(request.labels))
    folds = VALIDATION_FOLDS if recipe is None else recipe.folds
    return with_sides(manifest, request, folds), failures


def with_sides(manifest: Manifest, request: Request, folds: int) -> Manifest:
    """The manifest with folds grouped by patient over the cases that are not test cases, if neither
    the request's split nor the layout states folds or validation cases.

    Raises:
        LayoutError: fewer than two patients to train on.
    """
    by_request = request.folds or request.fold is not None
    validates = any(c.split == "val" and c.label for c in manifest)
    by_split = request.split and (validates or any(c.fold is not None for c in manifest))
    if by_split or (validates and not by_request):
        return manifest
    patients = len(manifest.to_learn_from().patients)
    if patients < 2:
        raise LayoutError(
            f"found {patients} patient(s) to train on; at least 2 are needed, one to train and "
            "one to validate",
            path=request.data,
        )
    tested = any(c.split == "test" and c.label for c in manifest)
    # Validation then only chooses a checkpoint: fewer patients are enough.
    if tested and not by_request:
        folds = max(folds, patients // ENOUGH_TO_VALIDATE)
    return manifest.with_folds(min(request.folds or folds, patients), request.seed)


def _split_of(manifest: Manifest, request: Request) -> dict[str, Any]:
    """The content of the run's split.json."""
    by_folds = any(c.fold is not None for c in manifest)
    all_folds = request.folds and request.fold is None
    fold = None if all_folds or not by_folds else request.fold or 0
    return lists_of(manifest, fold, f"{request.split or 'the layout'}, seed {request.seed}")

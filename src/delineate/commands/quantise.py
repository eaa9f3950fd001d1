"""Making a model ready for 8-bit integers: bounds found on some scans, and on others measured what
rounding costs and gains.

The new model is the old one with bounds beside its weights: it delineates as before, and with
``predict --precision int8`` in 8-bit integers. Masks differ then; by how much, in Dice, is what
this step measures, says, and writes into the model's card: of both masks of each scan to each other
and, where there is truth, of either to it. Where scans are few, all are used for both, which the
card says too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cohorts.discovery import channels
from ..cohorts.discovery.layouts import discover
from ..cohorts.discovery.originals import originals_in
from ..core.bundle import Bundle
from ..core.errors import DelineateError, InputError, UsageError
from ..core.manifest import Case, Manifest
from ..core.progress import Progress, Say, silent, under, unsaid
from ..core.scores import finite_mean, without_nan
from ..core.words import decimals
from ..execution import local as batch
from . import evaluate as evaluate_step
from . import predict as predict_step
from .benchmark import machine

if TYPE_CHECKING:
    from rich.table import Table

CASES = 8  # scans on which bounds are found, where there are as many again to measure on
PLAIN, ROUNDED = "auto", "int8"  # the precisions that are compared


@dataclass(frozen=True)
class QuantisationResult:
    """A model with bounds, and what 8-bit integers cost it.

    Args:
        bundle: the model as written.
        cost: as in the card: ``agreement`` (structure -> mean Dice of the rounded mask to the plain
            one), ``dice`` (structure -> mean Dice to the truth, plain and rounded; empty without
            truth), ``seconds`` (median of a scan, plain and rounded), scans and machine.
        failures: scans that could not be looked at or delineated, and truth that could not be
            scored.
    """

    bundle: Bundle
    cost: dict[str, Any]
    failures: tuple[str, ...] = ()


def quantise(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    truth: str | Path | None = None,
    only: str | None = None,
    cases: int = CASES,
    seed: int = 0,
    say: Say = unsaid,
    progress: Progress = silent,
) -> QuantisationResult:
    """Write ``model`` with bounds for 8-bit integers to ``out``.

    Args:
        inputs, only: scans of the kind that the model is for, as for ``predict``.
        truth: of them, as for ``evaluate``; None takes that of the one cohort that was given, where
            it has some.
        cases: scans on which bounds are found, drawn by ``seed``; costs are measured on all others,
            or on the same ones where others are fewer.

    Raises:
        InputError, BundleError, UsageError: nothing could be done at all; a machine without
            OpenVINO is one such.
        OutputError: ``out`` cannot be written; what stood there is unchanged.
    """
    if cases < 1:
        raise UsageError(f"bounds are found on at least 1 scan, found {cases}")
    bundle = Bundle.load(model)
    scans = predict_step.gather(inputs, bundle, only)
    for note in scans.notes:
        say(note)
    manifest = scans.manifest
    manifest = manifest.only(case for case in manifest if not channels.missing(case, manifest))
    if not manifest.cases:
        raise InputError(f"no scan has all channels of the model: {', '.join(manifest.channels)}")
    if truth is not None and not Path(truth).exists():
        raise InputError("does not exist", path=truth)
    scans.originals.plus([model]).refuse([out])
    if truth is not None:
        originals_in(truth).refuse([out])
    former = bundle.known_ids
    looked_at, measured_on = _parted(manifest, cases, seed)
    bundle, unread = _bounded(bundle, looked_at, seed, progress)
    rounded, seen = (
        sum(len(member.bounds) for member in bundle.members),
        len(looked_at) - len(unread),
    )
    say(f"{rounded} convolutions can be rounded; their bounds are those of {seen} scan(s)")
    with tempfile.TemporaryDirectory(prefix="delineate-") as folder:
        cost, failed = _measured(
            bundle, measured_on, _truth_of(inputs, truth), Path(folder), progress
        )
    apart = not {case.id for case in looked_at} & {case.id for case in measured_on}
    cost = {
        "layers": rounded,
        "bounds_of": seen,
        "measured_on_others": apart,
        **cost,
        "seed": seed,
        "machine": machine(),
    }
    card = {**bundle.card, "former_ids": list(former), "int8": without_nan(cost)}
    bundle = replace(bundle, card=card)
    bundle.save(out)
    return QuantisationResult(
        bundle, cost, tuple(dict.fromkeys([*map(str, scans.failures.values()), *unread, *failed]))
    )


def table(done: QuantisationResult) -> Table:
    """A table for the terminal: a row a structure, then the mean over structures."""
    from rich.table import Table

    agreement, dice = done.cost["agreement"], done.cost["dice"]
    shown = Table(
        title=f"8-bit integers beside the plain model, {done.cost['measured_on']} scan(s): mean "
        "Dice"
    )
    shown.add_column("structure")
    for column in (
        "of both masks",
        *(("plain to truth", "8 bits to truth", "difference") if dice else ()),
    ):
        shown.add_column(column, justify="right")

    def add(name: str, both: float, to_truth: Sequence[float]) -> None:
        more = (*map(decimals, to_truth), _signed(to_truth[1] - to_truth[0])) if dice else ()
        shown.add_row(name, decimals(both, 4), *more)

    for name, value in agreement.items():
        add(name, value, dice.get(name, (np.nan, np.nan)))
    if len(agreement) > 1:
        shown.add_section()
        add(
            "mean of structures",
            finite_mean(agreement.values()),
            [finite_mean(pair[n] for pair in dice.values()) for n in range(2)] if dice else (),
        )
    return shown


def sentence(done: QuantisationResult) -> str:
    """What it comes to, in words."""
    plain, rounded = done.cost["seconds"]
    of = (
        "others than the bounds were found on"
        if done.cost["measured_on_others"]
        else "the bounds were found on the same ones"
    )
    return (
        f"{rounded:.2f} s a scan instead of {plain:.2f} s ({plain / max(rounded, 1e-9):.1f} "
        "times as fast); masks agree at a mean Dice of "
        f"{decimals(finite_mean(done.cost['agreement'].values()), 4)} "
        f"({done.cost['measured_on']} scans, {of})"
    )


def _signed(difference: float) -> str:
    # A sum: -0.0 is no loss.
    return f"{round(difference, 4) + 0.0:+.4f}" if np.isfinite(difference) else "–"


def _parted(manifest: Manifest, cases: int, seed: int) -> tuple[Manifest, Manifest]:
    """The scans on which bounds are found, and those on which costs are measured."""
    order = np.random.default_rng(seed).permutation(len(manifest)).tolist()
    drawn = {manifest.cases[k].id for k in order[:cases]}
    looked_at, others = (
        manifest.only(case for case in manifest if (case.id in drawn) == wanted)
        for wanted in (True, False)
    )
    return looked_at, others if len(others) >= len(looked_at) else manifest


def _bounded(
    bundle: Bundle, looked_at: Manifest, seed: int, progress: Progress
) -> tuple[Bundle, list[str]]:
    """The bundle with bounds of every member, and the scans that could not be looked at."""
    from contextlib import ExitStack

    import torch
    from torch import nn

    from ..inference import engine as infer
    from ..inference import int8, predictor
    from ..inference import openvino as compiled

    if not compiled.available():
        raise UsageError(
            "8-bit integers need OpenVINO, which runs on a CPU (x86-64) where it is installed"
        )
    engine = infer.Engine.from_bundle(bundle, torch.device("cpu"), backend="torch")
    modules = [
        *(module for module, _ in engine.members),
        *(() if engine.first is None else (module for module, _ in engine.first.members)),
    ]
    # Stable: as the engines have them.
    ordered = sorted(bundle.members, key=lambda member: member.first_stage)
    draws = np.random.default_rng(seed)

    def look(case: Case) -> None:
        ready = predictor.make_ready(predict_step.read_scan(case, looked_at), bundle.plan)
        for own, window in predictor.drawn_windows(ready, engine, draws):
            for module, _ in own.members:
                infer.logits_of(module, window, own.plan.dims, own.dtype)

    with ExitStack() as stack:
        watches = [
            stack.enter_context(int8.RangeObserver(module, seed))
            for module in modules
            if isinstance(module, nn.Module)
        ]
        names = [case.id for case in looked_at]
        outcomes = batch.run(
            look,
            looked_at.cases,
            names=names,
            workers=1,
            stage="calibrate",
            progress=progress,
        )
    unread = [str(o.error) for o in outcomes if o.error is not None]
    if len(unread) == len(names):
        raise InputError(f"none of {len(names)} scans could be looked at; the first: {unread[0]}")
    found = {member.name: watch.bounds() for member, watch in zip(ordered, watches, strict=True)}
    if not all(found.values()):
        raise UsageError(
            f"this model has no convolution of at least {int8.FEW_INPUTS} feature maps: 8-bit "
            "integers would gain nothing"
        )
    return replace(
        bundle,
        members=tuple(replace(member, bounds=found[member.name]) for member in bundle.members),
    ), unread


def _measured(
    bundle: Bundle, manifest: Manifest, truth: Path | None, folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """What rounding costs and gains, and what failed."""
    seconds: dict[str, float] = {}
    failures: list[str] = []
    for precision in (PLAIN, ROUNDED):
        outcomes = predict_step.predict_cases(
            bundle,
            manifest,
            folder / precision,
            model=folder / "model",
            device="cpu",
            precision=precision,
            progress=under(f"predict, {precision}", progress),
        )
        failures += [str(o.error) for o in outcomes if o.error is not None]
        spent = [o.value["seconds"]["infer_and_restore"] for o in outcomes if o.value is not None]
        if not spent:
            raise InputError(
                f"none of {len(manifest)} scans could be delineated; the first: {failures[0]}"
            )
        seconds[precision] = round(median(spent), 4)
    agreement, to_truth = _dice(bundle, folder / ROUNDED, folder / PLAIN), {}
    if truth is not None:
        try:
            plain, rounded = (
                _dice(bundle, folder / precision, truth) for precision in (PLAIN, ROUNDED)
            )
            to_truth = {name: [plain[name], rounded[name]] for name in agreement if name in plain}
        except DelineateError as error:  # masks of other scans: that must not cost the model
            failures.append(str(error))
    return {
        "measured_on": len(spent),
        "agreement": agreement,
        "dice": to_truth,
        "seconds": [seconds[PLAIN], seconds[ROUNDED]],
    }, failures


def _dice(bundle: Bundle, prediction: Path, truth: Path) -> dict[str, float]:
    """Mean Dice over cases by structure."""
    scored = evaluate_step.evaluate(prediction, truth, surfaces=None)
    names = {label.value: label.name for label in scored.labels}  # a cohort may call them otherwise
    return {
        label.name: finite_mean(scored.scores.values(names[label.value], "dice"))
        for label in bundle.labels
        if label.value in names
    }


def _truth_of(inputs: Sequence[str | Path], given: str | Path | None) -> Path | None:
    """Where the truth of the scans is: as given, else in the one cohort that they are."""
    if given is not None:
        return Path(given)
    if len(inputs) != 1 or not (Path(inputs[0]).is_dir() or Path(inputs[0]).suffix == ".jsonl"):
        return None
    try:
        return Path(inputs[0]) if discover(Path(inputs[0])).manifest.with_truth() else None
    except DelineateError:
        return None

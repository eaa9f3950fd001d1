"""Quantise: calibrate a model for INT8 inference on some scans, and measure on others what it
costs and gains.

The new model is the old one with ranges of activations next to its weights. It predicts as before,
and with ``predict --precision int8`` in 8-bit integers. The masks then differ slightly. This
command measures the difference in Dice, prints it, and writes it into the model's card: between
the two masks of each scan and, if there are reference masks, of both to the reference. If there are
few scans, all are used for both, which the card states.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cohorts.discovery import channels
from ..cohorts.discovery.layouts import discover
from ..cohorts.discovery.originals import originals_in
from ..core.bundle import Bundle, refuse_foreign
from ..core.errors import DelineateError, InputError, UsageError
from ..core.manifest import Case, Manifest
from ..core.plan import Plan
from ..core.progress import Progress, Say, silent, under, unsaid
from ..core.scores import finite_mean, without_nan
from ..core.words import decimals
from ..execution import local as batch
from ..extend.registers import load_bundle
from ..extras import require_extra
from . import evaluate as evaluate_step
from . import predict as predict_step
from .options import EvaluateOptions, PredictOptions, QuantiseOptions

if TYPE_CHECKING:
    from rich.table import Table

    from ..inference.engine import Engine

PLAIN, ROUNDED = "float", "int8"  # the precisions compared


@dataclass(frozen=True)
class QuantisationResult:
    """A calibrated model, and the cost of INT8.

    Args:
        bundle: the model as written.
        cost: as in the card: ``agreement`` (structure -> mean Dice of the INT8 mask to the plain
            one), ``dice`` (structure -> mean Dice to the reference, plain and INT8; empty without
            reference masks), ``seconds`` (median of a scan, plain and INT8), scans and machine.
        failures: scans that could not be read or segmented, and reference masks that could not be
            scored.
    """

    bundle: Bundle
    cost: dict[str, Any]
    failures: tuple[str, ...] = ()


def quantise(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    options: QuantiseOptions = QuantiseOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
) -> QuantisationResult:
    """Write ``model``, calibrated for INT8 inference, to ``out``.

    Args:
        model: a bundle.
        inputs: scans like those the model will segment, as for ``predict``.
        out: the new bundle.
        options: see ``commands.options``.
        say, progress: see ``core.progress``.

    Raises:
        InputError, BundleError, UsageError: nothing could be done; also without OpenVINO.
        OutputError: ``out`` cannot be written; an existing file is unchanged.
    """
    require_extra("torch", "quantise")
    truth = options.truth
    if options.cases < 1:
        raise UsageError(f"at least 1 calibration scan is needed, found {options.cases}")
    bundle = load_bundle(model)
    scans = predict_step.gather(inputs, bundle, options.only)
    for note in scans.notes:
        say(note)
    manifest = scans.manifest
    manifest = manifest.only(case for case in manifest if not channels.missing(case, manifest))
    if not manifest.cases:
        raise InputError(f"no scan has all channels of the model: {', '.join(manifest.channels)}")
    if truth is not None and not Path(truth).exists():
        raise InputError("does not exist", path=truth)
    refuse_foreign(out, options.overwrite)
    scans.originals.plus([model]).refuse([out])
    if truth is not None:
        originals_in(truth).refuse([out])
    new, cost, failures = _calibrated(
        bundle, manifest, _truth_of(inputs, truth), options, say, progress
    )
    card = {**bundle.card, "former_ids": list(bundle.known_ids), "int8": without_nan(cost)}
    new = replace(new, card=card)
    new.save(out, options.overwrite)
    failures = list(dict.fromkeys([*map(str, scans.failures.values()), *failures]))
    return QuantisationResult(new, cost, tuple(failures))


def _calibrated(
    bundle: Bundle,
    manifest: Manifest,
    truth: Path | None,
    options: QuantiseOptions,
    say: Say,
    progress: Progress,
) -> tuple[Bundle, dict[str, Any], list[str]]:
    """The bundle with ranges of activations, what INT8 costs it, and the failures."""
    from .benchmark import machine

    calibration, measured_on = _parted(manifest, options.cases, options.seed)
    bundle, unread = _bounded(bundle, calibration, options.seed, progress)
    layers = sum(len(member.bounds) for member in bundle.members)
    read = len(calibration) - len(unread)
    say(f"{layers} convolutions can run in INT8; calibrated on {read} scan(s)")
    with tempfile.TemporaryDirectory(prefix="delineate-") as folder:
        cost, failed = _measured(bundle, measured_on, truth, Path(folder), progress)
    apart = not {case.id for case in calibration} & {case.id for case in measured_on}
    cost = {
        "layers": layers,
        "bounds_of": read,
        "measured_on_others": apart,
        **cost,
        "seed": options.seed,
        "machine": machine(),
    }
    return bundle, cost, [*unread, *failed]


def table(done: QuantisationResult) -> Table:
    """A table for the terminal: one row per structure, then the mean over structures."""
    from rich.table import Table

    agreement, dice = done.cost["agreement"], done.cost["dice"]
    shown = Table(
        title=f"INT8 compared with the plain model, {done.cost['measured_on']} scan(s): mean Dice"
    )
    shown.add_column("structure")
    for column in (
        "between both masks",
        *(("plain to reference", "INT8 to reference", "difference") if dice else ()),
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
            "mean over structures",
            finite_mean(agreement.values()),
            [finite_mean(pair[n] for pair in dice.values()) for n in range(2)] if dice else (),
        )
    return shown


def sentence(done: QuantisationResult) -> str:
    """The result in words."""
    plain, rounded = done.cost["seconds"]
    which = (
        "not used for calibration"
        if done.cost["measured_on_others"]
        else "the same as used for calibration"
    )
    return (
        f"{rounded:.2f} s per scan instead of {plain:.2f} s ({plain / max(rounded, 1e-9):.1f} "
        "times as fast); masks agree at a mean Dice of "
        f"{decimals(finite_mean(done.cost['agreement'].values()), 4)} "
        f"({done.cost['measured_on']} scans, {which})"
    )


def _signed(difference: float) -> str:
    # Adding 0.0 turns -0.0, which is no loss, into 0.0.
    return f"{round(difference, 4) + 0.0:+.4f}" if np.isfinite(difference) else "–"


def _parted(manifest: Manifest, cases: int, seed: int) -> tuple[Manifest, Manifest]:
    """The calibration scans, and the scans on which the cost is measured."""
    order = np.random.default_rng(seed).permutation(len(manifest)).tolist()
    drawn = {manifest.cases[k].id for k in order[:cases]}
    calibration, others = (
        manifest.only(case for case in manifest if (case.id in drawn) == wanted)
        for wanted in (True, False)
    )
    return calibration, others if len(others) >= len(calibration) else manifest


def _bounded(
    bundle: Bundle, calibration: Manifest, seed: int, progress: Progress
) -> tuple[Bundle, list[str]]:
    """The bundle with ranges of activations for every member, and the scans that failed."""
    import torch

    from ..inference import engine as infer
    from ..inference import int8
    from ..inference import openvino as compiled

    if not compiled.available():
        raise UsageError(
            "INT8 inference needs OpenVINO, which is not installed (it runs on x86-64 processors)"
        )
    engine = infer.Engine.from_bundle(bundle, torch.device("cpu"), backend="torch")
    # The sort is stable, so members are in the order of the engines.
    ordered = sorted(bundle.segmenting, key=lambda member: member.first_stage)
    found, unread = _observed(engine, bundle.plan, calibration, seed, progress)
    if not all(found):
        raise UsageError(
            f"this model has no convolution of at least {int8.FEW_INPUTS} feature maps: INT8 would "
            "not make it faster"
        )
    bounds = {member.name: own for member, own in zip(ordered, found, strict=True)}
    # What only finds where structures are is not rounded, and has none.
    members = tuple(
        replace(member, bounds=bounds.get(member.name, member.bounds)) for member in bundle.members
    )
    return replace(bundle, members=members), unread


def _observed(
    engine: Engine, plan: Plan, calibration: Manifest, seed: int, progress: Progress
) -> tuple[list[Mapping[str, NDArray[np.float32]]], list[str]]:
    """The ranges of activations of each network on some windows of the scans, and the scans that
    failed.

    Raises:
        InputError: no scan can be read.
    """
    from contextlib import ExitStack

    from torch import nn

    from ..inference import engine as infer
    from ..inference import int8, predictor

    draws = np.random.default_rng(seed)

    def observe(case: Case) -> None:
        scan = predictor.preprocess_scan(predict_step.read_scan(case, calibration), plan)
        for own, window in predictor.drawn_windows(scan, engine, draws):
            for module, _ in own.members:
                infer.logits_of(module, window, own.plan.dims, own.dtype)

    modules = [
        module
        for stage in (engine, engine.first)
        for module, _ in (() if stage is None else stage.members)
    ]
    with ExitStack() as stack:
        observers = [
            stack.enter_context(int8.RangeObserver(module, seed))
            for module in modules
            if isinstance(module, nn.Module)
        ]
        names = [case.id for case in calibration]
        outcomes = batch.run(
            observe,
            calibration.cases,
            names=names,
            workers=1,
            stage="calibrate",
            progress=progress,
        )
    unread = [str(o.error) for o in outcomes if o.error is not None]
    if len(unread) == len(names):
        raise InputError(f"none of {len(names)} scans could be read; first problem: {unread[0]}")
    return [observer.bounds() for observer in observers], unread


def _measured(
    bundle: Bundle, manifest: Manifest, truth: Path | None, folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """The cost and gain of INT8, and the failures."""
    seconds: dict[str, float] = {}
    failures: list[str] = []
    for precision in (PLAIN, ROUNDED):
        outcomes = predict_step.predict_cases(
            bundle,
            manifest,
            folder / precision,
            PredictOptions(device="cpu", precision=precision),
            model=folder / "model",
            progress=under(f"predict, {precision}", progress),
        )
        failures += [str(o.error) for o in outcomes if o.error is not None]
        spent = [o.value["seconds"]["infer_and_restore"] for o in outcomes if o.value is not None]
        if not spent:
            raise InputError(
                f"none of {len(manifest)} scans could be segmented; first problem: {failures[0]}"
            )
        seconds[precision] = round(median(spent), 4)
    agreement, to_truth = _dice(bundle, folder / ROUNDED, folder / PLAIN), {}
    if truth is not None:
        try:
            plain, rounded = (
                _dice(bundle, folder / precision, truth) for precision in (PLAIN, ROUNDED)
            )
            to_truth = {name: [plain[name], rounded[name]] for name in agreement if name in plain}
        except DelineateError as error:  # such as masks of other scans; the model is kept
            failures.append(str(error))
    return {
        "measured_on": len(spent),
        "agreement": agreement,
        "dice": to_truth,
        "seconds": [seconds[PLAIN], seconds[ROUNDED]],
    }, failures


def _dice(bundle: Bundle, prediction: Path, truth: Path) -> dict[str, float]:
    """Structure -> mean Dice over the cases."""
    scored = evaluate_step.evaluate(prediction, truth, options=EvaluateOptions(surface="none"))
    names = {label.value: label.name for label in scored.labels}  # a cohort may use other names
    return {
        label.name: finite_mean(scored.scores.values(names[label.value], "dice"))
        for label in bundle.labels
        if label.value in names
    }


def _truth_of(inputs: Sequence[str | Path], given: str | Path | None) -> Path | None:
    """The reference masks of the scans: as given, else those of the cohort if there is one."""
    if given is not None:
        return Path(given)
    if len(inputs) != 1 or not (Path(inputs[0]).is_dir() or Path(inputs[0]).suffix == ".jsonl"):
        return None
    try:
        return Path(inputs[0]) if discover(Path(inputs[0])).manifest.with_truth() else None
    except DelineateError:
        return None

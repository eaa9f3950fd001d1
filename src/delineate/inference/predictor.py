"""One scan through a model: prepare, windows, restore, postprocess; nothing of files.

Volume --make_ready--> (C, I, J, K) --windows--> slabs of class scores --restore--> labels on the
scan's own grid

The first part needs no network, so that one scan can be made ready while another is delineated.

Asked for samples, the road from the windows on is gone again for each of them, with dropout at work
(Gal 2016; Roy 2019).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import UsageError
from ..core.grid import Grid
from ..core.plan import Inference, Plan
from ..core.prediction import Prediction
from ..core.progress import Progress, silent
from ..core.volume import BODY_HU, Volume
from ..preprocessing.prepare import PreprocessingRecord, prepare, prepare_label, restore
from ..preprocessing.regions import far_from_body, keep_largest
from . import engine as infer
from .engine import Engine, marching_axis, sampling, slabs

AIR_HU = -1000.0
AIR_MARGIN_MM = 30.0  # that a network is still shown of what surrounds a body


@dataclass(frozen=True)
class DropoutSamples:
    """How many Monte-Carlo dropout samples, and ``key``, from which each one's seed follows: equal
    keys give equal samples.
    """

    count: int = 0
    key: str = "0"

    def refuse_unless_fit(self, plan: Plan) -> None:
        """UsageError where a model of ``plan`` cannot be sampled so."""
        if self.count < 0 or self.count == 1:
            raise UsageError(f"--samples must be 0 or at least 2, found {self.count}")
        if self.count and not plan.network.dropout:
            raise UsageError(
                "samples differ by dropout, and this model was trained without; there is nothing "
                "to sample"
            )

    def seed(self, index: int) -> int:
        """The seed of sample ``index``."""
        return int.from_bytes(hashlib.sha256(f"{self.key} {index}".encode()).digest()[:7], "little")


def with_mirroring(plan: Plan, mirror: bool | None) -> Inference:
    """How a model of ``plan`` predicts: True averages over mirror images, False never does, None
    does what the plan says.

    True takes the axes that training mirrored; those of the plan's own inference where training
    mirrored none.
    """
    inference = plan.inference
    if mirror is None:
        return inference
    axes = (plan.augmentation.mirror or inference.mirror) if mirror else ()
    return inference.model_copy(update={"mirror": axes})


def refuse_missing(plan: Plan) -> None:
    """UsageError where a model of ``plan`` must not be given a scan that lacks channels."""
    if not plan.augmentation.drop_channel_p:
        raise UsageError(
            "the model was not trained with missing channels (modality dropout); train one with "
            "augmentation.drop_channel_p above 0 in its plan"
        )


def refuse_unless_ct(plan: Plan) -> None:
    """UsageError where ``plan`` is not one of CT alone, whose grey values tell air from tissue."""
    other = [
        f"{c.name} ({c.normalise.kind})" for c in plan.channels if c.normalise.kind != "window"
    ]
    if other:
        raise UsageError(
            "air is only left out of CT, which a plan normalises by a window in HU; this model "
            f"takes {', '.join(other)}"
        )


def refuse_overlapping(plan: Plan) -> None:
    """UsageError where structures of ``plan`` may overlap, so that their probabilities do not add
    up to 1.
    """
    if plan.network.overlapping:
        raise UsageError(
            "this model's structures may overlap: their probabilities do not add up to 1, and "
            "are not given"
        )


def _leave_air_out(scan: Tensor, record: PreprocessingRecord, plan: Plan) -> None:
    """Make what is far outside the body plain air, in place: windows of nothing else are then
    computed once for all (see ``infer``).
    """
    rules = [channel.normalise for channel in plan.channels]
    threshold = (max(BODY_HU, rules[0].low) - rules[0].mean) / rules[0].std
    beyond = torch.from_numpy(
        far_from_body(scan[0].numpy(), threshold, record.prepared.spacing_mm, AIR_MARGIN_MM)
    )
    for channel, rule in zip(scan, rules, strict=True):
        channel[beyond] = (max(AIR_HU, rule.low) - rule.mean) / rule.std


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as a model's networks take it, and the way back.

    ``scan`` (C, I, J, K) float32 on the prepared grid; ``first``: the same for the first stage of a
    cascade; ``missing``: the names of the channels it lacks; ``grid``, ``source`` and ``meta`` are
    the volume's; ``seconds`` it took.
    """

    scan: Tensor
    record: PreprocessingRecord
    grid: Grid
    source: str
    meta: dict[str, Any]
    missing: tuple[str, ...]
    first: PreparedScan | None
    seconds: float


def make_ready(
    volume: Volume, plan: Plan, present: Sequence[int] | None = None, skip_air: bool = False
) -> PreparedScan:
    """Prepare one scan for a model of ``plan``; arguments and errors as for ``predict``."""
    began = time.perf_counter()
    missing = (
        ()
        if present is None
        else tuple(c.name for n, c in enumerate(plan.channels) if n not in present)
    )
    if missing:
        refuse_missing(plan)
    if skip_air:
        refuse_unless_ct(plan)
    scan, record = prepare(volume, plan, present)
    if skip_air:
        _leave_air_out(scan, record, plan)
    first = (
        make_ready(volume, plan.low_resolution, present)
        if plan.cascade and plan.low_resolution is not None
        else None
    )
    meta: dict[str, Any] = {
        key: volume.meta[key] for key in ("modality", "spacing_known") if key in volume.meta
    }
    return PreparedScan(
        scan, record, volume.grid, volume.source, meta, missing, first, time.perf_counter() - began
    )


def predict(
    volume: Volume,
    engine: Engine,
    bundle_id: str = "",
    inference: Inference | None = None,
    *,
    samples: DropoutSamples = DropoutSamples(),
    present: Sequence[int] | None = None,
    skip_air: bool = False,
    **how: Any,
) -> Prediction:
    """Delineate one scan: ``make_ready`` and ``delineate``, whose arguments and errors are not said
    again here.

    Args:
        volume: (I, J, K) or (C, I, J, K) with the plan's channels, any orientation and spacing; let
            go of once it is prepared.
        present: which of the plan's channels the volume has, in order, where it lacks some; the
            others are 0 after normalisation.
        skip_air: do not ask the network about what is more than 3 cm outside the body of a CT.

    Raises:
        InputError: another number of channels than the plan takes (or than are ``present``).
        UsageError: missing channels where the model was not trained for them; ``skip_air`` of no
            CT.
    """
    samples.refuse_unless_fit(engine.plan)
    ready = make_ready(volume, engine.plan, present, skip_air)
    del volume
    return delineate(ready, engine, bundle_id, inference, samples=samples, **how)


def delineate(
    ready: PreparedScan,
    engine: Engine,
    bundle_id: str = "",
    inference: Inference | None = None,
    *,
    samples: DropoutSamples = DropoutSamples(),
    memory_bytes: int | None = None,
    probabilities: bool = False,
    progress: Progress = silent,
) -> Prediction:
    """Delineate one scan that was made ready for the engine's plan.

    The labels are those of the deterministic pass, dropout off, whether samples are asked for or
    not: asking how sure a model is must not change what it says, and it is that map whose Dice was
    measured when the model was validated. (Roy 2019 delivers the mean of the samples, which is
    within noise of it.) The samples are prepared, restored and postprocessed as it is.

    Args:
        inference: instead of the plan's, to switch mirroring.
        samples: Monte-Carlo dropout; the result holds each as a label volume (uint8 or uint16) on
            the scan's grid.
        memory_bytes: that sums of class scores may take; see ``limits``.
        probabilities: give the probability of each structure at each voxel too, two bytes each.
        progress: gets the share of this scan that is done.

    Returns:
        Labels on exactly ``ready.grid``.

    Raises:
        UsageError: samples of a model without dropout; probabilities of structures that may
            overlap.
    """
    began, plan = time.perf_counter(), engine.plan
    samples.refuse_unless_fit(plan)
    if probabilities:
        refuse_overlapping(plan)
    scan, record = ready.scan, ready.record
    if ready.first is not None and engine.first is not None:
        scan = torch.cat(
            [scan, _found_before(ready.first, engine.first, record, inference, memory_bytes)]
        )
    shares = (
        np.empty((len(plan.structures) + 1, *record.source.shape), np.uint16, order="F")
        if probabilities
        else None
    )
    array = _labels(scan, record, engine, inference, memory_bytes, shares)
    ended = time.perf_counter()
    timing = {"prepare": ready.seconds, "infer_and_restore": ended - began}
    drawn = _draw(samples, scan, record, engine, inference, memory_bytes, progress)
    if drawn:
        timing["samples"] = time.perf_counter() - ended
    timing["total"] = sum(timing.values())
    labels = Volume(array, ready.grid, "label", ready.source, ready.meta)
    return Prediction(
        labels,
        plan.labels,
        bundle_id,
        timing,
        missing=ready.missing,
        probabilities=shares,
        samples=tuple(drawn),
    )


def drawn_windows(
    ready: PreparedScan, engine: Engine, draws: np.random.Generator
) -> Iterator[tuple[Engine, Tensor]]:
    """Some of the windows that ``delineate`` would show the networks of ``engine``, those of a
    cascade's first stage included; see ``infer``.
    """
    scan = ready.scan
    if ready.first is not None and engine.first is not None:
        yield from drawn_windows(ready.first, engine.first, draws)
        scan = torch.cat([scan, _found_before(ready.first, engine.first, ready.record, None, None)])
    yield from infer.drawn_windows(scan, engine, draws)


def _found_before(
    ready: PreparedScan,
    first: Engine,
    record: PreprocessingRecord,
    inference: Inference | None,
    memory_bytes: int | None,
) -> Tensor:
    """(structures, I, J, K) of 0 and 1 on the prepared grid of ``record``: what the first stage of
    a cascade finds in the scan.
    """
    how = (
        first.plan.inference
        if inference is None or inference.mirror
        else first.plan.inference.model_copy(update={"mirror": ()})
    )
    labels = Volume(
        _labels(ready.scan, ready.record, first, how, memory_bytes), ready.grid, "label"
    )
    classes = prepare_label(labels, record, first.plan.labels.compact())
    return torch.stack(
        [
            torch.from_numpy(classes == index).float()
            for index in range(1, len(first.plan.structures) + 1)
        ]
    )


def _labels(
    scan: Tensor,
    record: PreprocessingRecord,
    engine: Engine,
    inference: Inference | None,
    memory_bytes: int | None,
    probabilities: NDArray[np.uint16] | None = None,
) -> NDArray[Any]:
    """(I, J, K) label values on the scan's grid, postprocessed; ``probabilities`` are filled on the
    way (see ``prepare.restore``).
    """
    plan, structures = engine.plan, engine.plan.labels
    # Which one comes later matters to the former.
    ordered = [s.value for s in plan.structures] if plan.network.overlapping else structures.values
    values = np.array([0, *ordered], dtype=structures.dtype)
    average = (inference or plan.inference).average
    above = (0.0 if average == "logits" else 0.5) if plan.network.overlapping else None
    with torch.inference_mode(), closing(slabs(scan, engine, inference, memory_bytes)) as stream:
        sum_to_one = above is None and average == "probabilities"
        array = restore(
            stream,
            record,
            marching_axis(scan.shape[1:], plan),
            values,
            above,
            sum_to_one,
            probabilities,
        )
    for name in plan.postprocessing.keep_largest:
        keep_largest(array, structures.named(name).value)
    return array


def _draw(
    samples: DropoutSamples,
    scan: Tensor,
    record: PreprocessingRecord,
    engine: Engine,
    inference: Inference | None,
    memory_bytes: int | None,
    progress: Progress,
) -> list[NDArray[Any]]:
    drawn = []
    engine = engine.uncompiled() if samples.count else engine  # dropout is reached in modules alone
    for index in range(samples.count):
        progress("predict", 1 + index, 1 + samples.count, f"sample {index + 1} of {samples.count}")
        with sampling(engine, samples.seed(index)):
            drawn.append(_labels(scan, record, engine, inference, memory_bytes))
    return drawn

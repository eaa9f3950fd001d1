"""Segment one scan with a model: preprocess, infer, restore, postprocess. It knows no files.

    Volume --preprocess_scan--> (C, I, J, K) --windows--> slabs of class scores (L, d, A, B)
           --restore--> labels (I, J, K) on the scan's own grid

The first step needs no network, so that one scan can be preprocessed while another is segmented.

Monte-Carlo dropout repeats the steps from the windows on for each sample, with dropout active (Gal
2016; Roy 2019).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UsageError
from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.plan import Inference, Plan
from ..core.prediction import MAPS, Prediction
from ..core.progress import Progress, silent
from ..core.volume import BODY_HU, Volume
from ..extras import require_extra
from ..preprocessing import arrays
from ..preprocessing.prepare import (
    PreprocessingRecord,
    prepare_array,
    prepare_label,
    restore,
    restore_maps,
)
from ..preprocessing.regions import far_from_body, keep_largest
from . import coarse, oblique
from . import engine as infer
from .engine import Engine, marching_axis, sampling
from .sample_maps import SampleSums, refuse_unknown, sample_sums

MOST_OVERLAP = 0.9  # more windows than that are of no use: 1000 for each part of a scan
AIR_HU = -1000.0
AIR_MARGIN_MM = 30.0  # surroundings of the body that the network still reads


@dataclass(frozen=True)
class DropoutSamples:
    """The number of Monte-Carlo dropout samples, and the ``key`` from which their seeds are
    derived: equal keys give equal samples. ``maps``: those of ``sample_maps.MAPS`` to make of them.
    """

    count: int = 0
    key: str = "0"
    maps: tuple[str, ...] = ()

    def refuse_unless_fit(self, plan: Plan) -> None:
        """Raise UsageError if a model of ``plan`` cannot be sampled like this."""
        refuse_unknown(self.maps, self.count)
        if self.count < 0 or self.count == 1:
            raise UsageError(f"--samples must be 0 or at least 2, found {self.count}")
        if self.count and plan.output_labels.overlapping:
            raise UsageError("--samples is not available for structures that overlap")
        if self.count:
            require_extra("torch", "--samples")
        if self.count and not plan.network.dropout:
            raise UsageError(
                "--samples needs a model with dropout, and this one was trained without it: train "
                "one with --set network.dropout=0.2, or with a recipe that has it"
            )

    def seed(self, index: int) -> int:
        """The seed of sample ``index``."""
        return int.from_bytes(hashlib.sha256(f"{self.key} {index}".encode()).digest()[:7], "little")


def with_mirroring(plan: Plan, mirror: bool | None) -> Inference:
    """The inference settings of ``plan`` with mirroring on (True), off (False) or as planned
    (None).

    True mirrors along the axes that training mirrored; if training mirrored none, along those of
    the plan's own inference settings.
    """
    inference = plan.inference
    if mirror is None:
        return inference
    # Mirroring helps only along axes that training mirrored.
    axes = (plan.augmentation.mirror or inference.mirror) if mirror else ()
    return inference.model_copy(update={"mirror": axes})


def settings_of(
    plan: Plan, mirror: bool | None, overlap: float | None, coarse_first: bool | None = None
) -> Inference:
    """The inference settings of ``plan``, with the requested mirroring (``with_mirroring``),
    overlap of windows and coarse pass; None keeps that of the plan.

    Raises:
        UsageError: no fraction from 0 to below 1; a coarse pass that the model lacks.
    """
    inference = with_mirroring(plan, mirror)
    refuse_coarse(plan, coarse_first)
    if coarse_first is False:
        inference = inference.model_copy(update={"coarse": 0.0})
    if overlap is None:
        return inference
    refuse_overlap(overlap)
    return inference.model_copy(update={"overlap": overlap})


def refuse_overlap(overlap: float | None) -> None:
    """Raise UsageError if windows cannot share this fraction of their size."""
    if overlap is not None and not 0 <= overlap <= MOST_OVERLAP:
        raise UsageError(
            f"--overlap is a fraction from 0 to {MOST_OVERLAP:g} of a window's size, found "
            f"{overlap:g}"
        )


def refuse_coarse(
    plan: Plan, coarse_first: bool | None, probabilities: bool = False, samples: int = 0
) -> None:
    """Raise UsageError if a coarse pass is asked for that ``plan`` lacks, or whose result would not
    have what else is asked for.
    """
    if not coarse_first:
        return
    if not plan.inference.coarse:
        raise UsageError(
            "this model has no coarse pass: a training adds one where it saves windows and costs "
            "no accuracy on validation cases"
        )
    if probabilities or samples:
        raise UsageError(
            "--coarse leaves out windows, and probabilities and samples need all of them"
        )


def refuse_missing(plan: Plan) -> None:
    """Raise UsageError if a model of ``plan`` cannot segment scans that lack channels."""
    if not plan.augmentation.drop_channel_p:
        raise UsageError(
            "the model was not trained with missing channels (modality dropout); train one with "
            "augmentation.drop_channel_p above 0 in its plan"
        )


def refuse_unless_ct(plan: Plan) -> None:
    """Raise UsageError if ``plan`` has channels other than CT: only HU separate air from tissue."""
    other = [
        f"{c.name} ({c.normalise.kind})" for c in plan.channels if c.normalise.kind != "window"
    ]
    if other:
        raise UsageError(
            "air can only be skipped in CT, which a plan normalises by a window in HU; this model "
            f"has {', '.join(other)}"
        )


def refuse_overlapping(plan: Plan) -> None:
    """Raise UsageError if structures of ``plan`` may overlap, because their probabilities do not
    add up to 1 then.
    """
    if plan.network.overlapping:
        raise UsageError(
            "this model's structures may overlap, so their probabilities do not add up to 1 and "
            "are not available"
        )


def _blank_air(scan: NDArray[np.float32], record: PreprocessingRecord, plan: Plan) -> None:
    """Set voxels far outside the body of ``scan`` (C, I, J, K) to air, in place. Windows that hold
    only air are then computed once for all (see ``engine``).
    """
    # Thresholds and air are in HU; the scan is already normalised.
    rules = [channel.normalise for channel in plan.channels]
    threshold = (max(BODY_HU, rules[0].low) - rules[0].mean) / rules[0].std
    outside = far_from_body(scan[0], threshold, record.prepared.spacing_mm, AIR_MARGIN_MM)
    for channel, rule in zip(scan, rules, strict=True):
        channel[outside] = (max(AIR_HU, rule.low) - rule.mean) / rule.std


# Of what the reader of a scan states, what its prediction states too.
KEPT = ("modality", "spacing_known", "series", "part")


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan preprocessed for a model's networks, with the record that restores its grid.

    ``scan`` (C, I, J, K) float32 on the preprocessed grid; ``first``: the same for the first stage
    of a cascade; ``missing``: the names of the channels it lacks; ``grid``, ``source`` and ``meta``
    are the volume's; ``seconds``: the time preprocessing took.
    """

    scan: NDArray[np.float32]
    record: PreprocessingRecord
    grid: Grid
    source: str
    meta: dict[str, Any]
    missing: tuple[str, ...]
    first: PreparedScan | None
    seconds: float


def preprocess_scan(
    volume: Volume, plan: Plan, present: Sequence[int] | None = None, skip_air: bool = False
) -> PreparedScan:
    """Preprocess one scan for a model of ``plan``; arguments and errors as in ``predict``."""
    began = time.perf_counter()
    missing = (
        ()
        if present is None
        else tuple(c.name for n, c in enumerate(plan.channels) if n not in present)
    )
    # Refuse what the model cannot do before the slow part.
    if missing:
        refuse_missing(plan)
    if skip_air:
        refuse_unless_ct(plan)
    scan, record = prepare_array(volume, plan, present)
    if skip_air:
        _blank_air(scan, record, plan)
    # The first stage of a cascade reads the same scan at its own resolution.
    first = (
        preprocess_scan(volume, plan.low_resolution, present)
        if plan.cascade and plan.low_resolution is not None
        else None
    )
    meta: dict[str, Any] = {key: volume.meta[key] for key in KEPT if key in volume.meta}
    meta["unit"] = volume.unit
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
    """Segment one scan: ``preprocess_scan``, then ``segment``. The arguments and errors of
    ``segment`` are documented there.

    Args:
        volume: (I, J, K) or (C, I, J, K) with the plan's channels, any orientation and spacing; its
            memory is released after preprocessing.
        present: if the volume lacks channels, the indices of the plan's channels that it has, in
            order. The others are 0 after normalisation.
        skip_air: do not run the network on air more than 3 cm outside the body (CT only).

    Raises:
        InputError: the number of channels is not the plan's (or not that of ``present``).
        UsageError: channels are missing and the model was not trained for that; ``skip_air`` for a
            model of other images than CT.
    """
    samples.refuse_unless_fit(engine.plan)
    prepared = preprocess_scan(volume, engine.plan, present, skip_air)
    del volume
    return segment(prepared, engine, bundle_id, inference, samples=samples, **how)


def segment(
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
    """Segment one scan that was preprocessed for the engine's plan.

    The labels always come from the deterministic pass without dropout. Drawing samples must not
    change the segmentation, and this is the segmentation whose Dice was measured in validation.
    (Roy 2019 uses the mean of the samples, which differs from it only by noise.) With samples or
    probabilities there is no coarse pass.

    Args:
        inference: replaces the plan's settings, to switch mirroring or to change the overlap.
        samples: Monte-Carlo dropout; the result has each sample as a label volume (uint8 or uint16)
            on the scan's grid, and the requested maps.
        memory_bytes: memory for the sums of class scores; see ``memory_limits``.
        probabilities: also return the probability of each structure at each voxel, as uint16.
        progress: called with the fraction of this scan that is done.

    Returns:
        Labels on exactly ``ready.grid``.

    Raises:
        UsageError: samples without dropout; probabilities of structures that may overlap.
    """
    began, plan = time.perf_counter(), engine.plan
    samples.refuse_unless_fit(plan)
    if probabilities:
        refuse_overlapping(plan)
    scan, record = _network_input(ready, engine, inference, memory_bytes), ready.record
    shares = (
        np.empty((len(plan.structures) + 1, *record.source.shape), np.uint16, order="F")
        if probabilities
        else None
    )
    settings, whole = inference or plan.inference, probabilities or samples.count
    part = None if whole else coarse.find(scan, engine, settings)
    array = _labels(scan, record, engine, inference, memory_bytes, shares, part=part)
    ended = time.perf_counter()
    timing = {"prepare": ready.seconds, "infer_and_restore": ended - began}
    drawn, maps = _draw_samples(samples, scan, record, engine, inference, memory_bytes, progress)
    timing |= {"samples": time.perf_counter() - ended} if drawn else {}
    return Prediction(
        Volume(array, ready.grid, "label", ready.source, ready.meta),
        plan.output_labels,
        bundle_id,
        timing | {"total": sum(timing.values())},
        missing=ready.missing,
        probabilities=shares,
        samples=tuple(drawn),
        maps=maps,
        windows={} if part is None else part.counts(scan.shape[1:], plan, settings.overlap),
    )


def drawn_windows(
    ready: PreparedScan, engine: Engine, draws: np.random.Generator
) -> Iterator[tuple[Engine, Any]]:
    """Random windows among those that ``segment`` would read, including those of a cascade's first
    stage; see ``engine.drawn_windows``.
    """
    if ready.first is not None and engine.first is not None:
        yield from drawn_windows(ready.first, engine.first, draws)
    yield from infer.drawn_windows(_network_input(ready, engine, None, None), engine, draws)


def _network_input(
    prepared: PreparedScan, engine: Engine, inference: Inference | None, memory_bytes: int | None
) -> NDArray[np.float32]:
    """The scan (C, I, J, K) that the networks read: in a cascade, with the structures of the first
    stage as further channels.
    """
    if prepared.first is None or engine.first is None:
        return prepared.scan
    masks = _first_stage_masks(
        prepared.first,
        engine.first,
        prepared.record,
        inference,
        memory_bytes,
        engine.plan.inference.overlap,
    )
    return np.concatenate([prepared.scan, masks])


def _first_stage_masks(
    prepared: PreparedScan,
    first: Engine,
    record: PreprocessingRecord,
    inference: Inference | None,
    memory_bytes: int | None,
    own_overlap: float,
) -> NDArray[np.float32]:
    """(structures, I, J, K) of 0 and 1 on the preprocessed grid of ``record``: the segmentation by
    the first stage of a cascade. ``own_overlap`` is that of the second stage's plan.
    """
    # The first stage has its own settings; only mirroring can be switched off for both, and an
    # overlap that was asked for is that of both.
    settings = first.plan.inference
    if inference is not None and not inference.mirror:
        settings = settings.model_copy(update={"mirror": ()})
    if inference is not None and inference.overlap != own_overlap:
        settings = settings.model_copy(update={"overlap": inference.overlap})
    labels = Volume(
        _labels(prepared.scan, prepared.record, first, settings, memory_bytes),
        prepared.grid,
        "label",
    )
    # Labels on the scan's own grid become classes on the second stage's grid.
    own = first.plan.output_labels
    table = dict(enumerate(range(own.codes))) if own.overlapping else own.compact()
    classes = prepare_label(labels, record, table, "numpy")
    if own.overlapping:
        masks = [own.inside(classes, label) for label in own]
    else:
        masks = [classes == index for index in range(1, len(own) + 1)]
    return np.stack(masks).astype(np.float32)


def _labels(
    scan: NDArray[np.float32],
    record: PreprocessingRecord,
    engine: Engine,
    inference: Inference | None,
    memory_bytes: int | None,
    probabilities: NDArray[np.uint16] | None = None,
    sums: SampleSums | None = None,
    part: coarse.Part | None = None,
) -> NDArray[Any]:
    """(I, J, K) label values, or codes of overlapping structures, on the scan's grid, postprocessed
    (see ``Plan.output_labels``). ``probabilities`` (L, I, J, K) are filled in if given (see
    ``prepare.restore``), and the class scores are added to ``sums``. ``part``: windows are run of
    it alone.
    """
    plan, structures = engine.plan, engine.plan.labels
    # Label values in the order of the network's classes.
    values = np.array([0, *([] if structures.overlapping else structures.values)], structures.dtype)
    # Overlapping structures are thresholded; others compete for the largest score.
    average = (inference or plan.inference).average
    above = (0.0 if average == "logits" else 0.5) if plan.network.overlapping else None
    how = (scan, engine, inference, memory_bytes)
    if engine.oblique_deg and scan.shape[3] > 1:
        seen = oblique.slabs(*how, record.prepared.spacing_mm, engine.oblique_deg)
    else:
        seen = coarse.slabs(*how, part)
    with arrays.without_gradients(), closing(seen) as stream:
        sum_to_one = above is None and average == "probabilities"
        array = restore(
            stream if sums is None else sums.added(stream),
            record,
            marching_axis(scan.shape[1:], plan),
            values,
            above,
            sum_to_one,
            probabilities,
        )
    for name in plan.postprocessing.keep_largest:
        if structures.overlapping:
            _keep_largest_of(array, structures, name)
        else:
            keep_largest(array, structures.named(name).value)
    if plan.output == "label map" and structures.overlapping:
        return structures.painted(array)
    return array


def _keep_largest_of(codes: NDArray[Any], structures: LabelSet, name: str) -> None:
    """``keep_largest`` of one of the structures that overlap, in place."""
    label = structures.named(name)
    mask = structures.inside(codes, label).astype(np.uint8)
    if keep_largest(mask, 1):
        codes[structures.inside(codes, label) & (mask == 0)] ^= 1 << structures.values.index(
            label.value
        )


def _draw_samples(
    samples: DropoutSamples,
    scan: NDArray[np.float32],
    record: PreprocessingRecord,
    engine: Engine,
    inference: Inference | None,
    memory_bytes: int | None,
    progress: Progress,
) -> tuple[list[NDArray[Any]], dict[str, NDArray[np.float32]]]:
    """The Monte-Carlo dropout samples, each (I, J, K) label values on the scan's grid, and their
    maps.
    """
    drawn: list[NDArray[Any]] = []
    if not samples.count:
        return drawn, {}
    # Compiled graphs have no dropout layers to activate.
    engine, plan = engine.uncompiled(), engine.plan
    axis = marching_axis(scan.shape[1:], plan)
    a, b, c = (scan.shape[1 + a] for a in (axis, *(a for a in range(3) if a != axis)))
    logits = (inference or plan.inference).average == "logits"
    if samples.maps and memory_bytes is not None:
        memory_bytes //= 2  # the other half is for the sums of all samples
    with contextlib.ExitStack() as stack:
        sums = None
        if samples.maps:
            room = sample_sums(
                samples.count, plan.network.classes, (a, b, c), engine.device, logits, memory_bytes
            )
            sums = stack.enter_context(room)
        for index in range(samples.count):
            note = f"sample {index + 1} of {samples.count}"
            progress("predict", 1 + index, 1 + samples.count, note)
            with sampling(engine, samples.seed(index)):
                drawn.append(_labels(scan, record, engine, inference, memory_bytes, sums=sums))
        if sums is None:
            return drawn, {}
        with arrays.without_gradients():
            found = restore_maps(sums.slabs(), record, axis, len(MAPS))
    by_name = dict(zip(MAPS, found, strict=True))
    return drawn, {name: by_name[name] for name in samples.maps}

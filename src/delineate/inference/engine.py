"""From a prepared scan to class scores, window by window, handed over in finished slabs.

Windows of the plan's patch size march along one axis of the prepared grid. Only as many planes of
scores as a window is deep are held; as soon as no later window touches a plane it is divided by its
blending weight and yielded, so that restoring runs while later windows are still to come and no
full-size float volume of every class ever exists. Blending weights are Gaussian and separable, so
their sum is a product of three 1-D sums.

Several views (2-D networks along several axes, Roy 2019) finish their planes along different axes,
so their average is the one thing that is held whole. Sums of scores live in ``planes``, in memory
or, beyond a bound, in a temporary file.

Shapes: scan (C, I, J, K); windows (B, C, *patch); slabs (L, d, A, B') with the marching axis first
after the classes. In 2-D the patch is (I, J, 1): windows march along K and a batch holds several
slices.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..core.bundle import Bundle, Member
from ..core.errors import UsageError
from ..core.plan import Inference, Plan, View
from ..networks.build import filled, memory_format
from . import int8
from . import openvino as compiled
from .planes import Planes, planes

Triple = tuple[int, int, int]
Forward = Callable[[Tensor], Tensor]  # a module in evaluation mode, or a compiled graph
Backend = Literal["auto", "openvino", "torch"]
# What ``from_bundle`` takes for each precision that can be asked for.
DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "int8": torch.int8,
}
Activation = Literal["softmax", "sigmoid", "none"]
EMPTY_BYTES = 2**28  # logits of windows without contrast that are kept
WORK_BYTES = 2**25  # float32 scores that are blended at once on a CPU
# Voxels of input that one forward pass takes on a CPU; more gains nothing there.
WINDOW_VOXELS = 2**21
LEAST_DRAWN, MOST_DRAWN, DRAWN_VOXELS = 2, 32, 2**22  # windows of a scan where some stand for all
SCORES_BYTES = 2**28  # of one forward pass on a CPU: many classes mean fewer windows at once


@dataclass(frozen=True)
class Engine:
    """Networks ready to run: the members of a bundle on a device.

    ``members`` are (network, weight), modules in evaluation mode or compiled graphs; their
    probabilities are averaged. ``views`` names the view of each, where the plan has views; then the
    members of one view are averaged first, and the views by their members' mean weight. ``first``
    is the first stage of a cascade, an engine of its own.
    """

    plan: Plan
    members: tuple[tuple[Forward, float], ...]
    device: torch.device
    dtype: torch.dtype  # autocast to this; float32 runs as it is
    views: tuple[str, ...] = ()
    first: Engine | None = None

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        device: torch.device,
        dtype: torch.dtype | None = None,
        views: Sequence[str] = (),
        *,
        backend: Backend = "auto",
        graphs: Path | None = None,
    ) -> Engine:
        """Rebuild every member's network and fill in its weights.

        Args:
            dtype: to compute in; None takes the fastest of floats that the device has units for,
                int8 rounds the layers that have bounds to 8-bit integers (see ``int8``) and
                computes the rest so.
            views: only the members of these views; all of them where empty.
            backend: "auto" compiles for a CPU where OpenVINO is installed and knows the network's
                layers, and takes torch otherwise.
            graphs: folder where compiled networks are kept.

        Raises:
            UsageError: a view that the model does not have; a backend that is not here, or does not
                know the network; 8 bits of a model without bounds, or not by OpenVINO.
        """
        known = list(dict.fromkeys(member.view for member in bundle.members if member.view))
        unknown = [name for name in views if name not in known]
        if unknown:
            has = f"it has {', '.join(known)}" if known else "it is one network, without views"
            raise UsageError(f"the model has no view {', '.join(unknown)}; {has}")
        eight_bits = dtype == torch.int8
        if eight_bits:
            backend = _backend_of_eight_bits(bundle, backend)
        by_name, members, used = bundle.plan.named_views(), [], []
        first = None
        if bundle.plan.cascade and bundle.plan.low_resolution is not None:
            stage = Bundle(
                bundle.plan.low_resolution,
                tuple(replace(m, first_stage=False) for m in bundle.members if m.first_stage),
            )
            first = cls.from_bundle(stage, device, dtype, backend=backend, graphs=graphs)
        dtype = fast_dtype(device) if dtype is None or eight_bits else dtype
        for member in bundle.members:
            if not member.first_stage and (not views or member.view in views):
                plan = bundle.plan.seen(by_name[member.view]) if member.view else bundle.plan
                kept = f"{bundle.id}-{member.name}{'-int8' if eight_bits else ''}"
                members.append(
                    (
                        _ready(plan, member, device, dtype, backend, graphs, kept, eight_bits),
                        member.weight,
                    )
                )
                used.append(member.view)
        return cls(bundle.plan, tuple(members), device, dtype, tuple(used) if known else (), first)

    def uncompiled(self) -> Engine:
        """The same engine of modules alone, whose layers can be reached."""
        members = tuple(
            (m.module() if isinstance(m, compiled.Graph) else m, weight)
            for m, weight in self.members
        )
        return replace(
            self, members=members, first=None if self.first is None else self.first.uncompiled()
        )

    def by_view(self, inference: Inference) -> list[tuple[View, float, Engine]]:
        """Each view with its share of the average (they add up to 1) and the engine of its own
        members, which sees the view's plan.
        """
        plan = self.plan.replace(inference=inference.model_dump())
        parts = []
        for name, view in plan.named_views().items():
            mine = tuple(m for m, of in zip(self.members, self.views, strict=True) if of == name)
            if mine:
                weight = sum(w for _, w in mine) / len(mine)
                parts.append(
                    (view, weight, replace(self, plan=plan.seen(view), members=mine, views=()))
                )
        total = sum(weight for _, weight, _ in parts)
        return [(view, weight / total, engine) for view, weight, engine in parts]


def _backend_of_eight_bits(bundle: Bundle, backend: Backend) -> Backend:
    """OpenVINO, which alone makes integers of rounded numbers; UsageError where the model cannot be
    rounded, or another one was asked for.
    """
    if not all(member.bounds for member in bundle.members):
        raise UsageError(
            "this model was not made ready for 8-bit integers: `delineate quantise MODEL SCANS "
            "-o NEW` does it, and measures what they cost"
        )
    if backend == "torch":
        raise UsageError("8-bit integers need OpenVINO, torch has no fast ones")
    return "openvino"


def _ready(
    plan: Plan,
    member: Member,
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend,
    graphs: Path | None,
    name: str,
    eight_bits: bool,
) -> Forward:
    """One member's network, compiled or as a module."""

    def make() -> nn.Module:
        module = filled(plan.network, member.weights)
        return int8.rounded(module, member.bounds) if eight_bits else module

    may = device.type == "cpu" and compiled.available()
    if may and backend != "torch":
        graph = compiled.compiled(
            make, (plan.network.channels, *plan.patch[: plan.dims]), dtype, graphs, name
        )
        if graph is not None:
            return graph
    if backend == "openvino":
        raise UsageError(
            "OpenVINO does not know a layer of this network"
            if may
            else "OpenVINO runs on a CPU (x86-64) where it is installed"
        )
    return make().to(device)


@contextlib.contextmanager
def sampling(engine: Engine, seed: int) -> Iterator[None]:
    """Inside, dropout is at work and draws from ``seed``, and everything else evaluates as before
    (Gal 2016).

    Only dropout layers are put into training mode, so that no norm sees the batch or learns from
    it. The random streams outside are as they were afterwards.

    Raises:
        ValueError: a member has no dropout layer, or is compiled.
    """
    modules = [module for module, _ in engine.members if isinstance(module, nn.Module)]
    layers = [
        [m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        for module in modules
    ]
    if not all(layers) or len(layers) < len(engine.members):
        raise ValueError("sampling needs networks with dropout layers")
    on_gpu = engine.device.type == "cuda"
    gpu = (
        engine.device.index
        if engine.device.index is not None
        else (torch.cuda.current_device() if on_gpu else 0)
    )
    with torch.random.fork_rng(devices=[gpu] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        for layer in itertools.chain(*layers):
            layer.train()
        try:
            yield
        finally:
            for layer in itertools.chain(*layers):
                layer.eval()


def fast_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device has units for it, float32 elsewhere."""
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if device.type == "cpu" and (amx or bf16) else torch.float32


def marching_axis(shape: Sequence[int], plan: Plan) -> int:
    """The axis along which the fewest scores must be held: a window's depth times the plane across
    it.
    """
    if plan.dims == 2:
        return 2
    held = [
        min(plan.patch[a], shape[a]) * np.prod([n for b, n in enumerate(shape) if b != a])
        for a in range(3)
    ]
    return int(np.argmin(held))


def slabs(
    scan: Tensor,
    engine: Engine,
    inference: Inference | None = None,
    memory_bytes: int | None = None,
) -> Generator[Tensor, None, None]:
    """Class scores of a prepared scan in order along ``marching_axis``: probabilities, or logits
    where these are what the plan averages.

    Args:
        scan: (C, I, J, K) float32, any size; smaller than a patch is padded with zeros.
        inference: instead of the plan's (to switch mirroring on or off).
        memory_bytes: that sums of scores may take; beyond, they lie in a temporary file. None: see
            ``planes``.

    Yields:
        (L, d, A, B) on the engine's device, d planes at a time; the depths add up to the axis'
        length.

    Raises:
        OutputError: no room for the temporary file that sums of scores need where memory has none.
    """
    inference = inference or engine.plan.inference
    if engine.views:
        yield from _slabs_of_views(scan, engine, inference, memory_bytes)
        return
    axis = marching_axis(scan.shape[1:], engine.plan)
    padded, before = _padded(scan, engine.plan.patch)
    kept = [(b, b + n) for b, n in zip(before, scan.shape[1:], strict=True)]
    along, across_a, across_b = kept[axis], *(kept[a] for a in range(3) if a != axis)
    for position, scores in _finished_planes(padded, engine, inference, axis, memory_bytes):
        low, high = max(position, along[0]), min(position + scores.shape[1], along[1])
        if high > low:
            yield scores[:, low - position : high - position, slice(*across_a), slice(*across_b)]


def drawn_windows(
    scan: Tensor, engine: Engine, draws: np.random.Generator
) -> Iterator[tuple[Engine, Tensor]]:
    """Some of the windows that ``slabs`` would show the networks of ``scan`` (C, I, J, K), drawn
    without repetition: (engine, (1, C, *patch)).

    The engine is the given one or, where that has views, the one of the view that the window is of.
    """
    if engine.views:
        for view, _, own in engine.by_view(engine.plan.inference):
            yield from drawn_windows(
                scan.permute(0, *(1 + axis for axis in view.order)), own, draws
            )
        return
    patch = engine.plan.patch
    padded, _ = _padded(scan, patch)
    corners = list(
        itertools.product(
            *(
                _starts(n, p, engine.plan.inference.overlap)
                for n, p in zip(padded.shape[1:], patch, strict=True)
            )
        )
    )
    most = min(MOST_DRAWN, max(LEAST_DRAWN, DRAWN_VOXELS // int(np.prod(patch))))
    for number in draws.permutation(len(corners))[:most]:
        yield (
            engine,
            padded[
                (
                    slice(None),
                    *(slice(c, c + p) for c, p in zip(corners[number], patch, strict=True)),
                )
            ][None].to(engine.device),
        )


# ---- several views ----


def _slabs_of_views(
    scan: Tensor, engine: Engine, inference: Inference, memory_bytes: int | None
) -> Iterator[Tensor]:
    """(L, d, I, J) probabilities along K: the weighted average of the views (Roy 2019, section
    2.5).

    A view that merged both sides of a structure votes with the full probability of the merged class
    for either side. It says that the voxel is one or the other, and leaves it to the other views
    which; half a vote for each would instead favour the background, which would lose nothing by the
    merging. What the classes then add up to is divided out.
    """
    i, j, k = scan.shape[1:]
    with planes(k, engine.plan.network.classes, (i, j), engine.device, memory_bytes) as average:
        for view, share, own in engine.by_view(inference):
            table = (
                engine.plan.labels.merge_table()
                if view.merge_sides
                else np.arange(engine.plan.network.classes)
            )
            start = 0
            for slab in slabs(
                scan.permute(0, *(1 + axis for axis in view.order)), own, memory_bytes=memory_bytes
            ):
                _add(slab, share, view, table, start, average)
                start += slab.shape[1]
                del slab  # so that it is gone before the next one is made
        for _, held in average.walk(0, k):
            scores = held.to(engine.device).movedim(1, 0).float()
            yield scores / scores.sum(0, keepdim=True)


def _add(
    slab: Tensor,
    share: float,
    view: View,
    table: np.ndarray[tuple[int], np.dtype[np.intp]],
    start: int,
    average: Planes,
) -> None:
    """Add ``share`` of a view's slab (L', d, A, B), whose first plane is ``start`` along the view's
    axis, to the average.
    """
    stands = (view.axis, *view.order[:2])
    turned = slab.permute(0, *(1 + stands.index(axis) for axis in (2, 0, 1)))  # (L', K, I, J)
    stop = start + slab.shape[1]
    i, j = (slice(start, stop) if axis == view.axis else slice(None) for axis in (0, 1))
    low, high = (start, stop) if view.axis == 2 else (0, turned.shape[1])
    for first, held in average.walk(low, high):
        part = turned[:, first - low : first - low + len(held)].to(held.device)
        for index, seen_as in enumerate(table.tolist()):
            held[:, index, i, j].add_(part[seen_as], alpha=share)


# ---- one network, window by window ----


def _finished_planes(
    scan: Tensor, engine: Engine, inference: Inference, axis: int, memory_bytes: int | None
) -> Iterator[tuple[int, Tensor]]:
    """(first plane, scores (L, d, A, B)) of the padded scan, in order, each as soon as no later
    window touches it.
    """
    shown = scan.to(engine.device)  # once: windows overlap, and a GPU would wait for each
    patch, order = engine.plan.patch, (axis, *(a for a in range(3) if a != axis))
    size = [scan.shape[1 + a] for a in order]
    starts = [_starts(scan.shape[1 + a], patch[a], inference.overlap) for a in order]
    profiles = [_gaussian(patch[a]) for a in order]
    totals = [
        _sum_of(p, s, n).to(engine.device) for p, s, n in zip(profiles, starts, size, strict=True)
    ]
    blend = _outer(profiles).to(engine.device)
    at_once = windows_at_once(engine)
    depth = min(size[0], max(patch[axis], at_once if engine.plan.dims == 2 else 1))
    done = 0
    empty: dict[Any, Tensor] = {}
    with planes(
        depth, engine.plan.network.classes, (size[1], size[2]), engine.device, memory_bytes
    ) as sums:
        for batch in _batches(starts, at_once, together=engine.plan.dims == 2):
            if batch[-1][0] + patch[axis] > done + depth:
                yield from _divided(sums, done, batch[0][0], totals)
                done = batch[0][0]
            _add_windows(sums, scan, shown, batch, order, blend, engine, inference, empty)
        yield from _divided(sums, done, size[0], totals)


def _divided(
    sums: Planes, low: int, high: int, totals: list[Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """(first plane, scores (L, d, A, B)) of the planes low..high, divided by the blending weights
    that met there; then they are zero.
    """
    for first, held in sums.walk(low, high):
        weight = _outer([totals[0][first : first + len(held)], totals[1], totals[2]])[:, None]
        yield first, (held.to(weight.device) / weight.to(held.dtype)).movedim(0, 1)
        held.zero_()


def windows_at_once(engine: Engine) -> int:
    """As many windows as make a forward pass worth its while, and whose scores stay within
    ``SCORES_BYTES``.
    """
    most = WINDOW_VOXELS if engine.device.type == "cpu" else 8 * WINDOW_VOXELS
    most = (
        min(most, SCORES_BYTES // (4 * engine.plan.network.classes))
        if engine.device.type == "cpu"
        else most
    )
    return max(1, most // int(np.prod(engine.plan.patch)))


def _batches(starts: list[list[int]], at_once: int, together: bool) -> Iterator[list[Triple]]:
    """Corners of all windows, marching axis slowest, a few at a time: of one place along that axis,
    or of several ``together``.
    """
    for group in [starts[0]] if together else [[first] for first in starts[0]]:
        corners = itertools.product(group, *starts[1:])
        while batch := list(itertools.islice(corners, at_once)):
            yield [(a, b, c) for a, b, c in batch]


def _add_windows(
    sums: Planes,
    scan: Tensor,
    shown: Tensor,
    corners: list[Triple],
    order: Sequence[int],
    blend: Tensor,
    engine: Engine,
    inference: Inference,
    empty: dict[Any, Tensor],
) -> None:
    """Add the blended scores of the windows at ``corners``, over members and mirror images;
    ``shown`` is ``scan`` on the engine's device.

    Windows without any contrast, air around a patient, say the same wherever they are: the logits
    of each such value are computed once and kept in ``empty``, which changes nothing at all.
    """
    patch = engine.plan.patch
    windows, values = [], []
    for corner in corners:
        at = dict(zip(order, corner, strict=True))
        here = (slice(None), *(slice(at[a], at[a] + patch[a]) for a in range(3)))
        windows.append(shown[here])
        low, high = (
            torch.stack(ends)
            for ends in zip(*(channel.aminmax() for channel in scan[here]), strict=True)
        )
        values.append(tuple(low.tolist()) if torch.equal(low, high) else None)
    flips = [
        c
        for n in range(len(inference.mirror) + 1)
        for c in itertools.combinations(inference.mirror, n)
    ]
    share = 1 / (sum(weight for _, weight in engine.members) * len(flips))

    def add(logits: Tensor, axes: Sequence[int], corner: Triple, weight: float) -> None:
        turned = _mirrored_back(logits, axes, engine).permute(0, *(1 + a for a in order))
        _add_scores(
            sums, turned, corner, blend * (weight * share), activation_of(engine.plan, inference)
        )

    filled_ones = [n for n, value in enumerate(values) if value is None]
    # Mirror images that go through the network side by side.
    together = max(1, windows_at_once(engine) // max(1, len(filled_ones)))
    x = torch.stack([windows[n] for n in filled_ones]) if filled_ones else None
    for member, (module, weight) in enumerate(engine.members):
        for start in range(0, len(flips) if x is not None else 0, together):
            group = flips[start : start + together]
            logits = logits_of(
                module,
                torch.cat([x.flip([2 + a for a in axes]) for axes in group]),  # type: ignore[union-attr]
                engine.plan.dims,
                engine.dtype,
            )
            for (axes, n), one in zip(itertools.product(group, filled_ones), logits, strict=True):
                add(one, axes, corners[n], weight)
        for n, value in enumerate(values):
            if value is not None:
                if (member, value) not in empty:
                    if sum(kept.numel() for kept in empty.values()) * 4 > EMPTY_BYTES:
                        empty.clear()
                    empty[member, value] = logits_of(
                        module, windows[n][None], engine.plan.dims, engine.dtype
                    )[0]
                for axes in flips:
                    add(empty[member, value], axes, corners[n], weight)


def _add_scores(
    sums: Planes, logits: Tensor, corner: Triple, weight: Tensor, activation: Activation
) -> None:
    """Add activation of ``logits`` (L, d, A, B) times ``weight`` (d, A, B) at ``corner``, a few
    planes at a time.
    """
    region = tuple(
        slice(start, start + n) for start, n in zip(corner[1:], logits.shape[2:], strict=True)
    )
    most = (
        None
        if logits.device.type != "cpu"
        else max(1, WORK_BYTES * sums.plane_bytes // (4 * logits[:, :1].numel()))
    )
    for first, held in sums.walk(corner[0], corner[0] + logits.shape[1], most):
        here = slice(first - corner[0], first - corner[0] + len(held))
        scores = _activated(logits[:, here].float(), activation, 0) * weight[here]
        held[(slice(None), slice(None), *region)] += scores.movedim(0, 1).to(held.device)


def _mirrored_back(logits: Tensor, axes: Sequence[int], engine: Engine) -> Tensor:
    """Logits (L, *patch) of a window that was mirrored along ``axes``, as it stands; left and right
    change names where their axis was flipped.
    """
    out = logits.flip([1 + a for a in axes]) if axes else logits
    swapped = engine.plan.sided_axis in axes and engine.plan.labels.is_sided
    return out[torch.from_numpy(engine.plan.labels.swap_table()).to(out.device)] if swapped else out


def activation_of(plan: Plan, inference: Inference) -> Activation:
    """What makes of logits the scores that are averaged."""
    return (
        "none"
        if inference.average == "logits"
        else "sigmoid"
        if plan.network.overlapping
        else "softmax"
    )


def _activated(logits: Tensor, activation: Activation, dim: int) -> Tensor:
    return (
        logits
        if activation == "none"
        else logits.softmax(dim)
        if activation == "softmax"
        else logits.sigmoid()
    )


def forward(
    module: Forward, x: Tensor, dims: int, dtype: torch.dtype, activation: Activation = "softmax"
) -> Tensor:
    """(B, C, I, J, K) -> (B, L, I, J, K) float32 scores; K is 1 in 2-D."""
    return _activated(logits_of(module, x, dims, dtype).float(), activation, 1)


@torch.inference_mode()
def logits_of(module: Forward, x: Tensor, dims: int, dtype: torch.dtype) -> Tensor:
    """(B, C, I, J, K) -> (B, L, I, J, K) logits of any float dtype; K is 1 in 2-D."""
    flat = x[..., 0] if dims == 2 else x
    with (
        torch.autocast(x.device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
    ):
        out = module(
            flat.contiguous(memory_format=memory_format(dims))
            if isinstance(module, nn.Module)
            else flat
        )
    return out[..., None] if dims == 2 else out


def _padded(scan: Tensor, patch: Triple) -> tuple[Tensor, list[int]]:
    """The scan with zeros on both sides where it is smaller than a patch, and how many stand before
    it.
    """
    missing = [max(0, p - n) for p, n in zip(patch, scan.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    if not any(missing):
        return scan, before
    pads = [n for m, b in reversed(list(zip(missing, before, strict=True))) for n in (b, m - b)]
    return nn.functional.pad(scan, pads), before


def _starts(length: int, patch: int, overlap: float) -> list[int]:
    """Evenly spread first voxels of windows that cover ``length`` and overlap by at least
    ``overlap``.
    """
    if length <= patch:
        return [0]
    count = int(np.ceil((length - patch) / max(1.0, patch * (1 - overlap)))) + 1
    return [int(v) for v in np.rint(np.linspace(0, length - patch, count))]


def _gaussian(length: int) -> Tensor:
    """(length,) weights of a window along one axis: deviation an eighth of it, never below 0.03 of
    the middle (with a floor, half-precision sums at a window's corners stay exact enough)."""
    x = torch.arange(length, dtype=torch.float32) - (length - 1) / 2
    return torch.exp(-0.5 * (x / (length / 8)) ** 2).clamp_min(0.03)


def _sum_of(profile: Tensor, starts: list[int], length: int) -> Tensor:
    """(length,) sum of the profiles of all windows along one axis."""
    total = torch.zeros(length)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total


def _outer(profiles: list[Tensor]) -> Tensor:
    """(a, b, c) product of three 1-D weights."""
    a, b, c = profiles
    return a[:, None, None] * b[None, :, None] * c[None, None, :]

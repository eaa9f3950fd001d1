"""Sliding-window inference: from a preprocessed scan to class scores, yielded in finished slabs.

Windows of the plan's patch size advance along one axis of the preprocessed grid (the marching
axis). Only as many planes of scores as a window is deep are kept. As soon as no later window
overlaps a plane, the plane is divided by its blending weight and yielded. Restoring therefore runs
during inference, and no full-size float volume of all classes ever exists. Blending weights are
Gaussian and separable, so their sum is a product of three 1-D sums.

Several views (2-D networks along several axes, Roy 2019) finish their planes along different axes.
Their average is therefore kept for the whole scan. Sums of scores are stored in ``planes``: in
memory or, above a limit, in a temporary file.

All is computed with tensors or, where every network is compiled for the CPU, with ndarrays and
without torch (``own_kind``). Shapes: scan (C, I, J, K); windows (B, C, *patch); slabs (L, d, A, B')
with the marching axis first after the classes. In 2-D the patch is (I, J, 1): windows advance along
K and a batch holds several slices. It knows no file and no grid.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.bundle import Bundle, Member
from ..core.errors import UsageError
from ..core.plan import Inference, Network, Plan, View
from ..extras import is_installed, require_extra
from ..preprocessing import arrays
from . import openvino as compiled
from . import placement, topology
from .devices import Cpu, choose_device, fast_precision
from .planes import Planes, planes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..preprocessing.arrays import Array

log = logging.getLogger(__name__)

Triple = tuple[int, int, int]
Forward = Callable[[Any], Any]  # a module in evaluation mode, or a compiled graph
Backend = Literal["auto", "openvino", "torch"]
# The ``dtype`` argument of ``from_bundle`` for each precision that a user can choose.
DTYPES = {
    "auto": None,
    "float": "float",
    "float32": "float32",
    "int8": "int8",
}
Activation = Literal["softmax", "sigmoid", "none"]
EMPTY_BYTES = 2**28  # cache of the logits of windows without contrast
WORK_BYTES = 2**22  # float32 scores that are blended at once on a CPU: they stay in its cache
# Input voxels of one forward pass on a CPU; more are no faster there.
WINDOW_VOXELS = 2**21
# Limits of ``drawn_windows``: windows at least and at most, voxels in all.
LEAST_DRAWN, MOST_DRAWN, DRAWN_VOXELS = 2, 32, 2**22
LEAST_TRACED = 16  # voxels along an axis of ``traced_shape``
# Scores (voxels times classes) from which torch, if installed, computes faster than NumPy by more
# than its import takes.
SCORES_FOR_TORCH = 2**27
SCORES_BYTES = 2**28  # of one forward pass on a CPU: with many classes, fewer windows at once


@dataclass(frozen=True)
class Engine:
    """The networks of a bundle, loaded on a device.

    ``members`` are (network, weight) pairs; a network is a module in evaluation mode or a compiled
    graph. Their probabilities (or logits, if the plan says so) are averaged. If the plan has views,
    ``views`` names the view of each member; the members of a view are averaged first, then the
    views, weighted by the mean weight of their members. ``first`` is the engine of a cascade's
    first stage; ``finder`` that which finds where structures are (see ``coarse``). With
    ``oblique_deg`` above 0 a scan is also seen in tilted planes (see ``oblique``).
    """

    plan: Plan
    members: tuple[tuple[Forward, float], ...]
    device: torch.device | Cpu
    dtype: Any  # of torch, or its name, for autocast; float32 means no autocast
    views: tuple[str, ...] = ()
    first: Engine | None = None
    oblique_deg: float = 0.0
    finder: Engine | None = None

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        device: torch.device | Cpu,
        dtype: Any = None,
        views: Sequence[str] = (),
        *,
        backend: Backend = "auto",
        graphs: Path | None = None,
    ) -> Engine:
        """Build every member's network and load its weights.

        Args:
            dtype: for the computation, of torch or its name. "float" selects the fastest float
                type that the device supports. int8 rounds the layers that have bounds to
                8-bit integers (see ``int8``) and uses that float type for the rest. None selects
                one of the two, see ``precision_of``.
            views: use only the members of these views; all of them if empty.
            backend: "auto" compiles for a CPU if OpenVINO is installed and supports the network's
                layers, and uses torch otherwise.
            graphs: folder that caches compiled networks.

        Raises:
            UsageError: the model lacks a requested view; the backend is not installed or does not
                support the network; INT8 of a model without bounds, or without OpenVINO.
        """
        known = _known_views(bundle, views)
        precision = precision_of(bundle, device, dtype, backend)
        eight_bits = precision == "int8"
        if eight_bits:
            backend = _int8_backend(bundle, backend)
        # The first stage is an engine of its own, with the same options.
        stage, first = _first_stage(bundle), None
        if stage is not None:
            # One that only finds where structures are is never rounded.
            kind = "float" if eight_bits and bundle.finds_coarsely else dtype
            first = cls.from_bundle(stage, device, kind, backend=backend, graphs=graphs)
        stages = (None, first) if bundle.finds_coarsely else (first, None)
        # With INT8, the layers that are not rounded compute in the fastest float type.
        if eight_bits or precision == "float":
            precision = fast_precision(device)
        by_name, members, used = bundle.plan.named_views(), [], []
        for member in bundle.members:
            if not member.first_stage and (not views or member.view in views):
                plan = bundle.plan.seen(by_name[member.view]) if member.view else bundle.plan
                name = f"{bundle.id}-{member.name}{'-int8' if eight_bits else ''}"
                network = _network(
                    plan, member, device, precision, backend, graphs, name, eight_bits
                )
                log.debug("%s: %s on %s in %s", name, type(network).__name__, device, precision)
                members.append((network, member.weight))
                used.append(member.view)
        used_views, kind = tuple(used) if known else (), _dtype(precision, device)
        found = cls(bundle.plan, tuple(members), device, kind, used_views, stages[0])
        return replace(found, finder=stages[1])

    def uncompiled(self) -> Engine:
        """The same engine with modules only, whose layers are accessible."""
        members = tuple(
            (m.module() if isinstance(m, compiled.Graph) else m, weight)
            for m, weight in self.members
        )
        return replace(
            self, members=members, first=None if self.first is None else self.first.uncompiled()
        )

    def by_view(self, inference: Inference) -> list[tuple[View, float, Engine]]:
        """(view, weight, engine) for each view. The weights add up to 1; the engine has the view's
        members and its plan.
        """
        plan = self.plan.replace(inference=inference.model_dump())
        parts = []
        for name, view in plan.named_views().items():
            own = tuple(m for m, of in zip(self.members, self.views, strict=True) if of == name)
            if own:
                # A view with many members must not outweigh one with few.
                weight = sum(w for _, w in own) / len(own)
                parts.append(
                    (view, weight, replace(self, plan=plan.seen(view), members=own, views=()))
                )
        total = sum(weight for _, weight, _ in parts)
        return [(view, weight / total, engine) for view, weight, engine in parts]


def precision_of(
    bundle: Bundle, device: torch.device | Cpu, dtype: Any = None, backend: Backend = "auto"
) -> str:
    """The precision that ``Engine.from_bundle`` uses. Without a ``dtype`` it is int8 for a model
    whose plan chooses it, on a CPU with hardware for 8-bit integers, and else "float".
    """
    if dtype is not None:
        return name_of(dtype)
    chosen = bundle.plan.inference.int8 and all(member.bounds for member in bundle.segmenting)
    if not chosen or device.type != "cpu" or backend == "torch":
        return "float"
    # Networks are rounded by torch before they are compiled.
    if not (compiled.available() and is_installed("torch")):
        return "float"
    from . import int8

    return "int8" if int8.adds_in_32_bits() else "float"


def refuse_unfit(bundle: Bundle, dtype: Any, views: Sequence[str]) -> None:
    """What ``Engine.from_bundle`` refuses before it builds a network.

    Raises:
        UsageError: the model lacks a requested view; INT8 of a model without bounds.
    """
    _known_views(bundle, views)
    if dtype is not None and name_of(dtype) == "int8":
        _int8_backend(bundle, "auto")


def _known_views(bundle: Bundle, views: Sequence[str]) -> list[str]:
    """The views of the model; UsageError if it lacks one of ``views``."""
    known = list(dict.fromkeys(member.view for member in bundle.members if member.view))
    unknown = [name for name in views if name not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it is one network, without views"
        raise UsageError(f"the model has no view {', '.join(unknown)}; {has}")
    return known


def _first_stage(bundle: Bundle) -> Bundle | None:
    """The first stage as a bundle of its own; None if the model has none."""
    has = bundle.plan.cascade or bundle.finds_coarsely
    if not has or bundle.plan.low_resolution is None:
        return None
    return Bundle(
        bundle.plan.low_resolution,
        tuple(replace(m, first_stage=False) for m in bundle.members if m.first_stage),
    )


def _int8_backend(bundle: Bundle, backend: Backend) -> Backend:
    """OpenVINO, the only backend with fast INT8 convolutions.

    Raises:
        UsageError: a member has no bounds, or torch was requested.
    """
    if not all(member.bounds for member in bundle.segmenting):
        raise UsageError(
            "this model is not quantised: `delineate quantise MODEL SCANS -o NEW` prepares it for "
            "INT8 inference and measures the loss of accuracy"
        )
    if backend == "torch":
        raise UsageError("INT8 inference needs OpenVINO; torch has no fast INT8 convolutions")
    return "openvino"


def _network(
    plan: Plan,
    member: Member,
    device: torch.device | Cpu,
    precision: str,
    backend: Backend,
    graphs: Path | None,
    name: str,
    eight_bits: bool,
) -> Forward:
    """One member's network: compiled if possible, else as a module on ``device``."""

    def make() -> nn.Module:
        require_extra("torch", "a network that is not compiled for this machine")
        from ..networks.build import filled
        from . import int8

        module = filled(plan.network, member.weights)
        return int8.rounded(module, member.bounds) if eight_bits else module

    # Prefer a compiled graph; None means that OpenVINO does not support a layer.
    can_compile = device.type == "cpu" and compiled.available()
    if can_compile and backend != "torch":
        shape = (plan.network.channels, *plan.patch[: plan.dims])
        kept = "" if eight_bits else member.graph
        graph = compiled.compiled(
            make,
            shape,
            precision,
            graphs,
            name,
            traced_shape(plan.network, plan.patch),
            kept_topology=(kept, member.weights),
        )
        if graph is not None:
            return graph
    if backend == "openvino":
        raise UsageError(
            "OpenVINO does not support a layer of this network"
            if can_compile
            else "the OpenVINO backend needs a CPU (x86-64) and the package openvino"
        )
    return make().to(str(device))


def keep_graphs(bundle: Bundle, graphs: Path) -> None:
    """Compile the networks for this machine's CPU and keep them in ``graphs``, so that the first
    prediction finds them. Does nothing where predictions use a GPU, or torch.
    """
    if choose_device().type != "cpu" or not compiled.available():
        return
    import torch

    # A graph is for a number of threads: that of a new process, not that of a training.
    threads = torch.get_num_threads()
    torch.set_num_threads(arrays.threads_of_new_process())
    try:
        Engine.from_bundle(bundle, Cpu(), graphs=graphs)
    finally:
        torch.set_num_threads(threads)


def with_topology(bundle: Bundle) -> Bundle:
    """The model with the topology of every network (see ``topology``), so that it predicts where no
    torch is installed; networks that have one keep it, and those that OpenVINO does not support
    have none.
    """
    if not compiled.available():
        return bundle
    from ..networks.build import filled

    by_name, members = bundle.plan.named_views(), []
    for member in bundle.members:
        if member.graph:
            members.append(member)
            continue
        whole = bundle.plan.low_resolution if member.first_stage else bundle.plan
        assert whole is not None  # a plan with members of a first stage has one
        plan = whole.seen(by_name[member.view]) if member.view else whole
        shape = (plan.network.channels, *plan.patch[: plan.dims])
        model = compiled.converted(
            filled(plan.network, member.weights), shape, traced_shape(plan.network, plan.patch)
        )
        text = None if model is None else topology.text_of(model, member.weights)
        members.append(replace(member, graph=text or ""))
    return replace(bundle, members=tuple(members))


def traced_shape(network: Network, patch: Triple) -> tuple[int, ...]:
    """(C, *size) of the window with which a network is traced, never larger than ``patch``; see
    ``openvino``. Registered networks, whose code may depend on the size, have ().
    """
    if network.kind not in Network.OWN_KINDS:
        return ()
    # At the deepest stage an axis keeps at least two voxels if it has them: a norm of one voxel
    # is another operation.
    size = (
        min(p, d * max(2, -(-LEAST_TRACED // d)))
        for p, d in zip(patch, network.divisor, strict=True)
    )
    return (network.channels, *tuple(size)[: network.dims])


def gains_by_int8(plan: Plan) -> bool:
    """Whether a window of a plan's network is so much work that INT8 can make a prediction faster;
    False with views, a cascade or a registered network.
    """
    small = traced_shape(plan.network, plan.patch)
    if plan.views or plan.cascade or not small:
        return False
    from . import int8

    scale = float(np.prod(plan.patch) / np.prod(small[1:]))
    return _operations(plan.network.model_dump_json(), small) * scale >= int8.FEWEST_OPERATIONS


@functools.lru_cache(maxsize=8)
def _operations(network: str, shape: tuple[int, ...]) -> int:
    """The operations of a network, as JSON, that INT8 makes faster, for a window of ``shape`` (C,
    *patch). A training asks several times.
    """
    import torch

    from ..networks.build import build
    from . import int8

    module = build(Network.model_validate_json(network)).eval()
    return int8.operations(module, torch.zeros(1, *shape))


@contextlib.contextmanager
def sampling(engine: Engine, seed: int) -> Iterator[None]:
    """Inside this context, dropout is active with random numbers from ``seed``; all other layers
    stay in evaluation mode (Gal 2016).

    Only dropout layers are put into training mode, so that no norm uses or learns the statistics of
    the batch. Afterwards torch's random state is as before.

    Raises:
        ValueError: a member has no dropout layer, or is compiled.
    """
    # Every member must be a module with dropout; a compiled graph has no layers to switch on.
    import torch
    from torch import nn

    modules = [module for module, _ in engine.members if isinstance(module, nn.Module)]
    layers = [
        [m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        for module in modules
    ]
    if not all(layers) or len(layers) < len(engine.members):
        raise ValueError("sampling needs networks with dropout layers")
    # Save the random state of the CPU and of the engine's GPU, and seed both.
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
        elif engine.device.type == "mps":
            torch.mps.manual_seed(seed)
        for layer in itertools.chain(*layers):
            layer.train()
        try:
            yield
        finally:
            for layer in itertools.chain(*layers):
                layer.eval()


def name_of(dtype: Any) -> str:
    """The name of a dtype of torch; a name is returned as it is."""
    return str(dtype).removeprefix("torch.")


def _dtype(name: str, device: torch.device | Cpu) -> Any:
    """The dtype of torch, or its name where torch may not be loaded."""
    if isinstance(device, Cpu):
        return name
    import torch

    return getattr(torch, name)


def fast_dtype(device: torch.device) -> torch.dtype:
    """As ``devices.fast_precision``, as a dtype of torch."""
    return _dtype(fast_precision(device), device)  # type: ignore[no-any-return]


def own_kind(scan: Any, engine: Engine) -> Any:
    """The scan (C, I, J, K) as the arrays that the engine computes with. A tensor stays one. An
    ndarray stays one if every network is compiled, unless there are so many scores that torch
    computes faster and is installed.
    """
    if not isinstance(scan, np.ndarray):
        return scan
    is_compiled = all(isinstance(network, compiled.Graph) for network, _ in engine.members)
    scores = engine.plan.network.classes * math.prod(scan.shape[1:])
    if is_compiled and (scores <= SCORES_FOR_TORCH or not is_installed("torch")):
        return scan
    return arrays.made(scan, "torch")


def marching_axis(shape: Sequence[int], plan: Plan) -> int:
    """The axis along which the fewest scores must be kept: a window's depth times the plane
    perpendicular to it. In 2-D always the last axis.
    """
    if plan.dims == 2:
        return 2
    # Scores to keep for each choice of the axis.
    held = [
        min(plan.patch[a], shape[a]) * np.prod([n for b, n in enumerate(shape) if b != a])
        for a in range(3)
    ]
    return int(np.argmin(held))


def slabs(
    scan: Array,
    engine: Engine,
    inference: Inference | None = None,
    memory_bytes: int | None = None,
    *,
    axis: int | None = None,
    wanted: Callable[[Triple], bool] | None = None,
) -> Generator[Any, None, None]:
    """Yield the class scores of a preprocessed scan, in order along ``marching_axis``.

    Scores are probabilities, or logits if the plan averages logits.

    Args:
        scan: (C, I, J, K) float32, a tensor or ndarray, any size; padded with zeros if smaller than
            a patch.
        inference: replaces the plan's settings (to switch mirroring on or off).
        memory_bytes: memory for the sums of scores; above it they are kept in a temporary file.
            None: see ``planes``.
        axis: another one to march along; not with views.
        wanted: whether the window that begins at a voxel of the scan (or before it, if the scan is
            padded) is run; voxels in none of them are background. None runs all. Not with views.

    Yields:
        (L, d, A, B) on the engine's device, d planes at a time; the depths add up to the axis'
        length.

    Raises:
        OutputError: the disk has no room for the temporary file.
    """
    inference, scan = inference or engine.plan.inference, own_kind(scan, engine)
    if engine.views:
        yield from _slabs_of_views(scan, engine, inference, memory_bytes)
        return
    axis = marching_axis(scan.shape[1:], engine.plan) if axis is None else axis
    padded, before = _padded(scan, engine.plan.patch)
    order = (axis, *(a for a in range(3) if a != axis))

    def runs(corner: Triple) -> bool:
        """Whether the window at a corner, in marching order, of the padded scan is run."""
        first = dict(zip(order, corner, strict=True))
        i, j, k = (first[a] - before[a] for a in range(3))
        return wanted is None or wanted((i, j, k))

    # The scan's extent within the padded scan, along the marching axis and across it.
    kept = [(b, b + n) for b, n in zip(before, scan.shape[1:], strict=True)]
    along, across_a, across_b = kept[axis], *(kept[a] for a in range(3) if a != axis)
    for position, scores in _finished_planes(padded, engine, inference, order, runs, memory_bytes):
        # Yield only the planes and voxels that are not padding.
        low, high = max(position, along[0]), min(position + scores.shape[1], along[1])
        if high > low:
            yield scores[:, low - position : high - position, slice(*across_a), slice(*across_b)]


def drawn_windows(
    scan: Array, engine: Engine, draws: np.random.Generator
) -> Iterator[tuple[Engine, Any]]:
    """Random windows among those that ``slabs`` would read of ``scan`` (C, I, J, K), drawn without
    repetition: (engine, (1, C, *patch)).

    If the engine has views, windows are drawn for each view and come with the view's own engine.
    """
    scan = own_kind(scan, engine)
    if engine.views:
        for view, _, own in engine.by_view(engine.plan.inference):
            yield from drawn_windows(
                arrays.transposed(scan, (0, *(1 + axis for axis in view.order))), own, draws
            )
        return
    patch = engine.plan.patch
    padded, _ = _padded(scan, patch)
    # The corners of all windows that ``slabs`` would read.
    overlap = engine.plan.inference.overlap
    corners = list(itertools.product(*placement.grid(padded.shape[1:], patch, overlap)))
    # Fewer windows if the patch is large.
    most = min(MOST_DRAWN, max(LEAST_DRAWN, DRAWN_VOXELS // int(np.prod(patch))))
    for number in draws.permutation(len(corners))[:most]:
        window = [slice(c, c + p) for c, p in zip(corners[number], patch, strict=True)]
        yield engine, arrays.moved(padded[(slice(None), *window)][None], engine.device)


# ---- several views ----


def _slabs_of_views(
    scan: Array, engine: Engine, inference: Inference, memory_bytes: int | None
) -> Iterator[Any]:
    """(L, d, I, J) probabilities along K: the weighted average of the views (Roy 2019, section
    2.5).

    A view that merged both sides of a structure contributes the full probability of the merged
    class to each side. Such a view knows that the voxel belongs to one of the sides, and the other
    views decide which one. Half the probability for each would favour the background, which loses
    nothing by the merging. The result is divided by its sum over the classes.
    """
    i, j, k = scan.shape[1:]
    kind, classes = arrays.kind_of(scan), engine.plan.network.classes
    with planes(k, classes, (i, j), engine.device, memory_bytes, kind) as average:
        for view, share, own in engine.by_view(inference):
            # The view's class for each class of the model.
            table = (
                engine.plan.labels.merge_table()
                if view.merge_sides
                else np.arange(engine.plan.network.classes)
            )
            # Segment the scan with its axes in the view's order.
            start = 0
            turned = arrays.transposed(scan, (0, *(1 + axis for axis in view.order)))
            for slab in slabs(turned, own, memory_bytes=memory_bytes):
                _add_view(slab, share, view, table, start, average)
                start += slab.shape[1]
                del slab  # free its memory before the next one is computed
        # Merged sides count twice, so the sum over the classes can exceed 1.
        for _, held in average.walk(0, k):
            scores = arrays.float32(arrays.axis_moved(arrays.moved(held, engine.device), 1, 0))
            yield scores / scores.sum(0)[None]


def _add_view(
    slab: Array,
    share: float,
    view: View,
    table: np.ndarray[tuple[int], np.dtype[np.intp]],
    start: int,
    average: Planes,
) -> None:
    """Add ``share`` of a view's slab (L', d, A, B), whose first plane is ``start`` along the view's
    axis, to the average. ``table`` (L,) maps each class of the model to a class of the view.
    """
    # Bring the slab's axes into the order of the average, (L', K, I, J).
    slab_axes = (view.axis, *view.order[:2])
    turned = arrays.transposed(slab, (0, *(1 + slab_axes.index(axis) for axis in (2, 0, 1))))
    # The part of the average that the slab covers.
    stop = start + slab.shape[1]
    i, j = (slice(start, stop) if axis == view.axis else slice(None) for axis in (0, 1))
    low, high = (start, stop) if view.axis == 2 else (0, turned.shape[1])
    for first, held in average.walk(low, high):
        part = turned[:, first - low : first - low + len(held)]
        for index, view_class in enumerate(table.tolist()):
            arrays.add_share(held[:, index, i, j], part[view_class], share)


# ---- one network, window by window ----


def _finished_planes(
    scan: Array,
    engine: Engine,
    inference: Inference,
    order: Sequence[int],
    runs: Callable[[Triple], bool],
    memory_bytes: int | None,
) -> Iterator[tuple[int, Any]]:
    """(first plane, scores (L, d, A, B)) of the padded scan, in order; planes are yielded as soon
    as no later window overlaps them. ``order`` has the marching axis first; windows for which
    ``runs`` is false are left out, and what no window covers is background.
    """
    # Copy the scan once: windows overlap, and a GPU would wait for each.
    on_device = arrays.moved(scan, engine.device)
    # Sizes, starts and weights are in marching order: the marching axis, then the other two.
    patch, axis = engine.plan.patch, order[0]
    size = [scan.shape[1 + a] for a in order]
    placed = placement.grid(scan.shape[1:], patch, inference.overlap)
    starts = [placed[a] for a in order]
    log.debug(
        "%d windows of %s voxels in %s, overlap at least %g",
        math.prod(map(len, starts)),
        " x ".join(map(str, patch)),
        " x ".join(map(str, scan.shape[1:])),
        inference.overlap,
    )
    profiles = [_gaussian(patch[a]) for a in order]
    blend = arrays.like(on_device, _outer(profiles))
    at_once = windows_at_once(engine)
    # Planes kept at once: the depth of a window, or in 2-D the slices of a batch.
    depth = min(size[0], max(patch[axis], at_once if engine.plan.dims == 2 else 1))
    done = 0  # planes yielded so far
    empty: dict[Any, Any] = {}
    totals = None
    if all(runs((a, b, c)) for a, b, c in itertools.product(*starts)):
        along = zip(profiles, starts, size, strict=True)
        totals = [arrays.like(on_device, _sum_of(*one)) for one in along]
    stored = (depth, *size[1:]), arrays.kind_of(scan), memory_bytes
    with _sums(engine, inference, *stored, totals) as (sums, weights):
        for batch in _batches(starts, at_once, engine.plan.dims == 2, runs):
            # If the batch reaches beyond the kept planes, those before it are finished.
            if batch[-1][0] + patch[axis] > done + depth:
                yield from _divided(sums, done, batch[0][0], weights)
                done = batch[0][0]
            _add_windows(sums, scan, on_device, batch, order, blend, engine, inference, empty)
            weights.add(batch, blend)
        yield from _divided(sums, done, size[0], weights)


@contextlib.contextmanager
def _sums(
    engine: Engine,
    inference: Inference,
    size: Sequence[int],
    kind: arrays.Kind,
    memory_bytes: int | None,
    totals: list[Any] | None,
) -> Iterator[tuple[Planes, _Weights]]:
    """The sums of scores of ``size`` voxels, and of blending weights: ``totals`` along each axis,
    or None if only some windows are run.
    """
    depth, a, b = size
    classes = engine.plan.network.classes
    # Weights of some windows take as much as a class.
    most = None if memory_bytes is None else memory_bytes // (classes + (totals is None))
    with contextlib.ExitStack() as stack:

        def kept(count: int) -> Planes:
            limit = None if most is None else most * count
            return stack.enter_context(planes(depth, count, (a, b), engine.device, limit, kind))

        sums = kept(classes)
        if totals is not None:
            yield sums, _AllWindows(totals)
        else:
            is_background = activation_of(engine.plan, inference) == "softmax"
            yield sums, _SomeWindows(kept(1), is_background)


class _Weights(Protocol):
    """The sums of the blending weights of windows."""

    def add(self, corners: Sequence[Triple], blend: Any) -> None:
        """Windows at ``corners`` were added to the sums of scores."""

    def under(self, first: int, held: Any) -> Any:
        """(n, A, B) the weights of the planes ``first`` to ``first + n``, by which their sums of
        scores ``held`` (n, L, A, B) are divided.
        """


@dataclass(frozen=True)
class _AllWindows:
    """Those of all windows: a product of ``totals``, the sums along each axis."""

    totals: list[Any]

    def add(self, corners: Sequence[Triple], blend: Any) -> None:
        pass

    def under(self, first: int, held: Any) -> Any:
        return _outer([self.totals[0][first : first + len(held)], *self.totals[1:]])


@dataclass(frozen=True)
class _SomeWindows:
    """Those of the windows that were run, in ``sums``. Voxels without one are the first class if
    there is a ``background``, and else no structure.
    """

    sums: Planes
    background: bool

    def add(self, corners: Sequence[Triple], blend: Any) -> None:
        for corner in corners:
            region = _region(corner, blend.shape)
            for first, held in self.sums.walk(corner[0], corner[0] + len(blend)):
                weight = blend[first - corner[0] : first - corner[0] + len(held)]
                held[(slice(None), 0, *region)] += arrays.moved(
                    weight, getattr(held, "device", None)
                )

    def under(self, first: int, held: Any) -> Any:
        # As many planes are kept as of ``held``, so that these are consecutive in both.
        at = first % self.sums.count
        kept = self.sums.mapped(at, at + len(held))[:, 0]
        outside = arrays.counts(kept == 0, kept)
        if self.background:
            held[:, 0] += arrays.as_in(held, outside)
        weight = kept + outside
        kept[:] = 0
        return weight


def _region(corner: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """A window's extent across the marching axis."""
    return tuple(slice(first, first + n) for first, n in zip(corner[1:], shape[1:], strict=True))


def _divided(sums: Planes, low: int, high: int, weights: _Weights) -> Iterator[tuple[int, Any]]:
    """(first plane, scores (L, d, A, B)) of the planes low..high, divided by the sum of their
    blending weights. The sums are then reset to zero.
    """
    for first, held in sums.walk(low, high):
        weight = weights.under(first, held)[:, None]
        there = arrays.moved(held, getattr(weight, "device", None))
        scores = there / arrays.as_in(there, weight)
        yield first, arrays.axis_moved(scores, 0, 1)
        held[:] = 0


def windows_at_once(engine: Engine) -> int:
    """The number of windows in one forward pass: enough for full speed, with scores within
    ``SCORES_BYTES`` on a CPU.
    """
    # The limit is in voxels: by input, and on a CPU also by the scores of all classes.
    most = WINDOW_VOXELS if engine.device.type == "cpu" else 8 * WINDOW_VOXELS
    most = (
        min(most, SCORES_BYTES // (4 * engine.plan.network.classes))
        if engine.device.type == "cpu"
        else most
    )
    return max(1, most // int(np.prod(engine.plan.patch)))


def _batches(
    starts: list[list[int]], at_once: int, together: bool, runs: Callable[[Triple], bool]
) -> Iterator[list[Triple]]:
    """Corners of the windows that are run, in batches of at most ``at_once``, marching axis
    slowest.

    A batch has windows of one position along that axis, or of several if ``together``.
    """
    for group in [starts[0]] if together else [[first] for first in starts[0]]:
        corners = ((a, b, c) for a, b, c in itertools.product(group, *starts[1:]))
        wanted = filter(runs, corners)
        while batch := list(itertools.islice(wanted, at_once)):
            yield batch


def _add_windows(
    sums: Planes,
    scan: Array,
    on_device: Array,
    corners: list[Triple],
    order: Sequence[int],
    blend: Any,
    engine: Engine,
    inference: Inference,
    empty: dict[Any, Any],
) -> None:
    """Add the blended scores of the windows at ``corners``, over all members and mirror images.

    ``on_device`` is ``scan`` on the engine's device. A window without contrast, such as air around
    a patient, has the same logits at any position. The logits of each such value are computed once
    and kept in ``empty``; the result is exactly the same.
    """
    windows, values = _cut_windows(scan, on_device, corners, order, engine.plan.patch)
    # All combinations of the mirrored axes, the plain window first.
    flips = [
        c
        for n in range(len(inference.mirror) + 1)
        for c in itertools.combinations(inference.mirror, n)
    ]
    # Scores are averaged over members by weight, and over mirror images equally.
    share = 1 / (sum(weight for _, weight in engine.members) * len(flips))

    def add(logits: Any, axes: Sequence[int], corner: Triple, weight: float) -> None:
        back = _mirrored_back(logits, axes, engine)
        turned = arrays.transposed(back, (0, *(1 + a for a in order)))
        _add_scores(
            sums, turned, corner, blend * (weight * share), activation_of(engine.plan, inference)
        )

    # Run the network on windows with contrast in batches; reuse cached logits for the others.
    with_contrast = [n for n, value in enumerate(values) if value is None]
    x = arrays.stacked([windows[n] for n in with_contrast]) if with_contrast else None
    for member, (network, weight) in enumerate(engine.members):
        if x is not None:
            for axes, n, logits in _mirrored_logits(network, x, flips, engine):
                add(logits, axes, corners[with_contrast[n]], weight)
        for n, value in enumerate(values):
            if value is not None:
                logits = _empty_logits(member, value, windows[n], engine, empty)
                for axes in flips:
                    add(logits, axes, corners[n], weight)


def _cut_windows(
    scan: Array, on_device: Array, corners: list[Triple], order: Sequence[int], patch: Triple
) -> tuple[list[Any], list[tuple[float, ...] | None]]:
    """The windows (C, *patch) at ``corners`` on the engine's device, and for each one without
    contrast its value in every channel, else None.
    """
    windows, values = [], []
    for corner in corners:
        at = dict(zip(order, corner, strict=True))
        here = (slice(None), *(slice(at[a], at[a] + patch[a]) for a in range(3)))
        windows.append(on_device[here])
        # Constant in every channel: minimum and maximum are equal.
        low, high = zip(*(arrays.ends(channel) for channel in scan[here]), strict=True)
        values.append(low if low == high else None)
    return windows, values


def _mirrored_logits(
    network: Forward, x: Any, flips: list[tuple[int, ...]], engine: Engine
) -> Iterator[tuple[tuple[int, ...], int, Any]]:
    """(mirrored axes, index of the window, logits (L, *patch)) for every mirror image of the
    windows x (B, C, *patch), still mirrored.
    """
    # Several mirror images share a forward pass if there is room for them.
    together = max(1, windows_at_once(engine) // max(1, len(x)))
    for start in range(0, len(flips), together):
        group = flips[start : start + together]
        logits = logits_of(
            network,
            arrays.concatenated([arrays.flipped(x, [2 + a for a in axes]) for axes in group]),
            engine.plan.dims,
            engine.dtype,
        )
        for (axes, n), one in zip(itertools.product(group, range(len(x))), logits, strict=True):
            yield axes, n, one


def _empty_logits(
    member: int,
    value: tuple[float, ...],
    window: Any,
    engine: Engine,
    empty: dict[Any, Any],
) -> Any:
    """Logits (L, *patch) of a window that has ``value`` everywhere, cached in ``empty``."""
    if (member, value) not in empty:
        if sum(math.prod(kept.shape) for kept in empty.values()) * 4 > EMPTY_BYTES:
            empty.clear()
        network, _ = engine.members[member]
        empty[member, value] = logits_of(network, window[None], engine.plan.dims, engine.dtype)[0]
    return empty[member, value]


def _add_scores(
    sums: Planes, logits: Array, corner: Triple, weight: Any, activation: Activation
) -> None:
    """Add activation(``logits`` (L, d, A, B)) * ``weight`` (d, A, B) to ``sums`` at ``corner``, a
    few planes at a time.
    """
    region = _region(corner, logits.shape[1:])
    # On a CPU, few planes at a time: the float32 copies stay within WORK_BYTES.
    most = (
        None
        if not arrays.on_cpu(logits)
        else max(1, WORK_BYTES * sums.plane_bytes // (4 * math.prod(logits[:, :1].shape)))
    )
    for first, held in sums.walk(corner[0], corner[0] + logits.shape[1], most):
        here = slice(first - corner[0], first - corner[0] + len(held))
        scores = _activated(arrays.float32(logits[:, here]), activation, 0) * weight[here]
        added = arrays.axis_moved(scores, 0, 1)
        held[(slice(None), slice(None), *region)] += arrays.moved(
            added, getattr(held, "device", None)
        )


def _mirrored_back(logits: Array, axes: Sequence[int], engine: Engine) -> Any:
    """Logits (L, *patch) of a window that was mirrored along ``axes``, mirrored back. If the
    left-right axis was flipped, left and right classes are exchanged.
    """
    out = arrays.flipped(logits, [1 + a for a in axes]) if axes else logits
    labels = engine.plan.labels
    if engine.plan.sided_axis not in axes or not labels.is_sided:
        return out
    # Structures that overlap have no background class.
    table = labels.swap_table()[1:] - 1 if labels.overlapping else labels.swap_table()
    return arrays.chosen(out, table)


def activation_of(plan: Plan, inference: Inference) -> Activation:
    """The function that turns logits into the scores to average."""
    return (
        "none"
        if inference.average == "logits"
        else "sigmoid"
        if plan.network.overlapping
        else "softmax"
    )


def _activated(logits: Array, activation: Activation, dim: int) -> Any:
    return (
        logits
        if activation == "none"
        else arrays.softmax(logits, dim)
        if activation == "softmax"
        else arrays.sigmoid(logits)
    )


def forward(
    module: Forward, x: Array, dims: int, dtype: Any, activation: Activation = "softmax"
) -> Any:
    """Scores of a network: (B, C, I, J, K) -> (B, L, I, J, K) float32; K is 1 in 2-D."""
    return _activated(arrays.float32(logits_of(module, x, dims, dtype)), activation, 1)


def logits_of(module: Forward, x: Array, dims: int, dtype: Any) -> Any:
    """Logits of a network: (B, C, I, J, K) -> (B, L, I, J, K), any float dtype; K is 1 in 2-D."""
    flat = x[..., 0] if dims == 2 else x
    compute = module if isinstance(module, compiled.Graph) else partial(_by_torch, module, dtype)
    out = compute(flat)
    return out[..., None] if dims == 2 else out


def _by_torch(module: Forward, dtype: Any, x: Any) -> Any:
    """Logits (B, L, *patch) of x (B, C, *patch)."""
    import torch

    from ..networks.build import memory_format

    name = name_of(dtype)
    how = (
        contextlib.nullcontext()
        if name == "float32"
        else torch.autocast(x.device.type, getattr(torch, name))
    )
    with torch.inference_mode(), how:
        if isinstance(module, torch.nn.Module):
            x = x.contiguous(memory_format=memory_format(x.ndim - 2))
        return module(x)


def _padded(scan: Array, patch: Triple) -> tuple[Any, list[int]]:
    """The scan, padded with zeros on both sides along axes that are shorter than a patch, and the
    number of zeros before it along each axis.
    """
    missing = [max(0, p - n) for p, n in zip(patch, scan.shape[1:], strict=True)]
    before = [m // 2 for m in missing]
    if not any(missing):
        return scan, before
    pads = [(0, 0), *((b, m - b) for m, b in zip(missing, before, strict=True))]
    return arrays.padded(scan, pads), before


def _gaussian(length: int) -> NDArray[np.float32]:
    """(length,) blending weights of a window along one axis, 1 at the centre.

    The standard deviation is an eighth of the length. No weight is below 0.03: with this floor,
    half-precision sums at a window's corners are accurate enough.
    """
    x: NDArray[np.float32] = np.arange(length, dtype=np.float32) - (length - 1) / 2
    weights = np.exp(-0.5 * (x / (length / 8)) ** 2).astype(np.float32)
    return np.asarray(np.maximum(weights, 0.03), np.float32)


def _sum_of(profile: NDArray[np.float32], starts: list[int], length: int) -> NDArray[np.float32]:
    """(length,) sum of all windows' blending weights along one axis."""
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total


def _outer(profiles: list[Any]) -> Any:
    """(a, b, c) product of three 1-D weights."""
    a, b, c = profiles
    return a[:, None, None] * b[None, :, None] * c[None, None, :]

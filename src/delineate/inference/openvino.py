"""Networks compiled by OpenVINO for this machine's processor: the same logits as torch, several
times faster.

A network is traced once, converted and compiled for the shape of its windows. Tracing runs the
whole network, so it is done with a small window if no operation depends on the size (``traced``).
The compiled graph is cached in a folder next to the model (``graph_cache``). Its file name depends
on everything that determines the graph, so that the next process neither builds nor converts the
network. A file that is damaged or from another version is replaced. Shapes: x (B, C, *patch) ->
logits (B, L, *patch); a graph runs one window at a time, so B is any number. It knows no plan.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import logging
import math
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.machine import import_without
from ..preprocessing import arrays
from . import graph_cache, skips, topology

if TYPE_CHECKING:
    from torch import nn

    from ..core.bundle import Weights

# Windows up to this size run in parallel, one core each.
SMALL_VOXELS = 2**17
# Windows up to this size run in parallel, ``CORES_EACH`` for each: several cores compute one with
# the same total work, and a single window, such as a picture, leaves fewer idle. A larger window
# uses all cores, so that only one needs memory at a time.
MEDIUM_VOXELS = 2**19
CORES_EACH = 4
# In the name of a cached graph; another one where the same network is compiled otherwise.
VERSION = 2


def available() -> bool:
    """Whether OpenVINO is installed and supports this processor."""
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and importlib.util.find_spec("openvino") is not None
    )


class Graph:
    """A compiled network, called like a module in evaluation mode: (B, C, *patch) -> (B, L, *patch)
    float32, tensors or ndarrays. ``module`` builds that module, for a caller that needs its layers;
    ``memory`` is what the network uses without owning it.
    """

    def __init__(self, compiled: Any, module: Callable[[], nn.Module], memory: object = None):
        self.module = module
        self._compiled = compiled
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        self._shape = tuple(int(n) for n in compiled.output(0).shape[1:])
        self._memory = memory  # last, so that it ends last

    def __call__(self, x: Any) -> Any:
        import openvino

        # Several windows are in flight at once; a request is reused when its window is finished.
        given = np.ascontiguousarray(arrays.to_numpy(x))
        out = np.empty((len(x), *self._shape), np.float32)
        try:
            for n in range(len(x)):
                request = self._requests[n % len(self._requests)]
                request.wait()
                request.set_input_tensor(openvino.Tensor(given[n : n + 1], shared_memory=True))
                request.set_output_tensor(openvino.Tensor(out[n : n + 1], shared_memory=True))
                request.start_async()
            self._wait()
        except BaseException:
            # A signal, anywhere: the arrays must exist until the requests have ended.
            self._wait()
            raise
        return arrays.like(x, out)

    def _wait(self) -> None:
        for request in self._requests:
            request.wait()


def compiled(
    make: Callable[[], nn.Module],
    shape: Sequence[int],
    dtype: Any,
    kept: Path | None = None,
    name: str = "",
    traced: Sequence[int] = (),
    kept_topology: tuple[str, Weights] = ("", {}),
) -> Graph | None:
    """The graph of a network, from the cache ``kept`` if it is there; None if OpenVINO does not
    support one of its layers.

    Args:
        make: builds the module with its weights, in evaluation mode; called only if the graph is
            not in the cache.
        shape: (C, *patch) of a window.
        dtype: of torch or its name: float32, or bfloat16 if the processor has hardware for it.
        kept: folder for the graphs of one model; if it cannot be written, nothing is cached.
        name: identifies the network and its weights.
        traced: (C, *size) of a smaller window with which the network is traced; only of networks
            whose operations do not depend on the size. () traces with ``shape``.
        kept_topology: of the network, with its weights (see ``topology``); "" converts the module.
    """
    core = _core()
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if str(dtype).endswith("bfloat16") else "f32",
        "NUM_STREAMS": str(streams(math.prod(shape[1:]), arrays.threads())),
        "INFERENCE_NUM_THREADS": str(arrays.threads()),
    }
    # The file name holds a digest of all that the graph depends on.
    key = (
        f"{VERSION} {name} {tuple(shape)} {sorted(settings.items())} {openvino.__version__} "
        f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}"
    )
    file = (
        None
        if kept is None or not name
        else kept / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.graph"
    )
    # Use the cached graph, or compile the network and cache it.
    if file is not None and (found := graph_cache.read(file)) is not None:
        try:
            return Graph(_imported(core, found, settings), make, found)
        except RuntimeError:
            logging.getLogger(__name__).debug("%s is from another OpenVINO; replaced", file)
    model = _rebuilt(kept_topology, shape)
    if model is None:
        model = converted(make(), shape, traced)
    if model is None:
        return None
    if settings["INFERENCE_PRECISION_HINT"] == "f32":
        model = _without_copies(model)
    graph = core.compile_model(model, "CPU", settings)
    if file is not None:
        blob = graph.export_model()
        graph_cache.write(file, bytes(blob.getvalue() if hasattr(blob, "getvalue") else blob))
    return Graph(graph, make)


def _imported(core: Any, graph: memoryview, settings: dict[str, str]) -> Any:
    """The compiled network of a kept graph; without a copy of its bytes, which must then exist for
    as long as the network does, where this OpenVINO can do so.
    """
    import openvino

    tensor = openvino.Tensor(np.frombuffer(graph, np.uint8), shared_memory=True)
    try:
        return core.import_model(tensor, "CPU", settings)
    except TypeError:  # an older one
        return core.import_model(io.BytesIO(graph), "CPU", settings)


def _rebuilt(kept: tuple[str, Weights], shape: Sequence[int]) -> Any:
    """The network of a topology; None if there is none, or if this OpenVINO cannot build it."""
    if not kept[0]:
        return None
    try:
        return topology.rebuilt(*kept, (1, *shape))
    except topology.TopologyError as error:
        logging.getLogger(__name__).debug("the topology is not used: %s", error)
        return None


def _without_copies(model: Any) -> Any:
    """The model with skip connections that are not copied (see ``skips``), where it has some."""
    changed = model.clone()
    try:
        return changed if skips.without_copies(changed) else model
    except RuntimeError as error:  # a network whose operations are not those of a U-Net
        logging.getLogger(__name__).debug("skip connections are copied: %s", error)
        return model


def converted(module: nn.Module, shape: Sequence[int], traced: Sequence[int] = ()) -> Any:
    """The module as an OpenVINO model for windows of ``shape`` (C, *patch), or None; arguments as
    for ``compiled``.
    """
    return _converted(module, (1, *shape), (1, *(traced or shape)))


def fast_precision() -> str:
    """bfloat16 if this CPU has hardware for it, else float32."""
    found = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if "BF16" in found else "float32"


def streams(voxels: int, threads: int) -> int:
    """The number of windows of this size that run in parallel.

    >>> [streams(side**3, 16) for side in (48, 64, 96)], streams(512**2, 2)
    ([16, 4, 1], 1)
    """
    if voxels > MEDIUM_VOXELS:
        return 1
    return threads if voxels <= SMALL_VOXELS else max(1, threads // CORES_EACH)


@functools.cache
def _core() -> Any:
    """OpenVINO's core, one for the whole process. On processors with AMX every core replaces the
    stack on which signals are handled; if one of several ends, that stack may be freed, and the
    next signal ends the process.
    """
    # Its converters of files of other tools are not used here.
    return import_without("openvino", "openvino.tools.ovc").Core()


def _converted(module: nn.Module, shape: Sequence[int], traced: Sequence[int]) -> Any:
    """The module as an OpenVINO model for inputs of ``shape``, traced with one of shape ``traced``;
    None if it has a layer that cannot be converted.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.passes import ConstantFolding, Manager

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trace: Any = torch.jit.trace
            decoder = TorchScriptPythonDecoder(
                trace(module, torch.zeros(*traced), check_trace=False)
            )
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
            model.reshape(list(shape))
            # Fold constants: otherwise the bounds of 8-bit layers count as computed values, and the
            # layers stay in floats.
            passes = Manager()
            passes.register_pass(ConstantFolding())
            passes.run_passes(model)
            # Same size in and out, whatever it was traced with.
            if list(model.output(0).shape)[2:] != list(shape)[2:]:
                raise ValueError(f"traced with {traced}, it gives {model.output(0).shape}")
        except Exception as error:  # the frontend raises many kinds
            logging.getLogger(__name__).debug(
                "OpenVINO cannot convert %s: %s", type(module).__name__, error
            )
            return None if traced == shape else _converted(module, shape, shape)
    return model

"""Networks compiled for this machine's processor by OpenVINO: the same logits, several times sooner
than torch's.

A network is traced once with the shape of its windows, converted and compiled. What the compiler
made is kept in a folder beside the model, under a name that says all it depends on, so that the
next process neither builds the network nor converts it; a file that is damaged, or that another
version made, is made anew. Shapes: x (B, C, *patch) -> logits (B, L, *patch); a graph takes one
window, so B is any.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import atomic
from ..core.errors import OutputError

SMALL_VOXELS = (
    2**19
    # windows up to this run side by side, one core each; larger ones share all cores, which holds
    # the
    # memory of one
)
_DIGEST = 32


def available() -> bool:
    """Whether OpenVINO is installed and made for this processor."""
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and importlib.util.find_spec("openvino") is not None
    )


class Graph:
    """A compiled network; called like a module in evaluation mode. ``module`` makes that module,
    where a layer must be reached.
    """

    def __init__(self, compiled: Any, module: Callable[[], nn.Module]):
        self.module = module
        self._compiled = compiled
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = [compiled.create_infer_request() for _ in range(count)]
        self._shape = tuple(int(n) for n in compiled.output(0).shape[1:])

    def __call__(self, x: Tensor) -> Tensor:
        import openvino

        x = x.contiguous()
        out = torch.empty((len(x), *self._shape))
        for n in range(len(x)):
            request = self._requests[n % len(self._requests)]
            request.wait()
            request.set_input_tensor(openvino.Tensor(x[n : n + 1].numpy(), shared_memory=True))
            request.set_output_tensor(openvino.Tensor(out[n : n + 1].numpy(), shared_memory=True))
            request.start_async()
        for request in self._requests:
            request.wait()
        return out


def compiled(
    make: Callable[[], nn.Module],
    shape: Sequence[int],
    dtype: torch.dtype,
    kept: Path | None = None,
    name: str = "",
) -> Graph | None:
    """The graph of a network, from the folder ``kept`` where it is there; None where OpenVINO does
    not know one of its layers.

    Args:
        make: builds the module with its weights, in evaluation mode; called only where nothing is
            kept.
        shape: (C, *patch) of a window.
        dtype: float32, or bfloat16 where the processor has units for it.
        kept: folder for the graphs of one model; one that cannot be written is done without.
        name: says which network and weights these are.
    """
    import openvino

    core = openvino.Core()
    side_by_side = torch.Size(shape[1:]).numel() <= SMALL_VOXELS
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "NUM_STREAMS": str(torch.get_num_threads() if side_by_side else 1),
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    words = (
        f"{name} {tuple(shape)} {sorted(settings.items())} {openvino.__version__} "
        f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}"
    )
    file = (
        None
        if kept is None or not name
        else kept / f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:16]}.graph"
    )
    if file is not None and (found := _read(file)) is not None:
        try:
            return Graph(core.import_model(io.BytesIO(found), "CPU", settings), make)
        except RuntimeError:
            logging.getLogger(__name__).debug("%s is not of this OpenVINO; made anew", file)
    model = _converted(make(), (1, *shape))
    if model is None:
        return None
    made = core.compile_model(model, "CPU", settings)
    if file is not None:
        _write(file, made.export_model())
    return Graph(made, make)


def _converted(module: nn.Module, shape: Sequence[int]) -> Any:
    """The module as an OpenVINO model of this one shape; None where it has a layer that cannot be
    converted.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.passes import ConstantFolding, Manager

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoder = TorchScriptPythonDecoder(
                torch.jit.trace(module, torch.zeros(*shape), check_trace=False)  # type: ignore[no-untyped-call]
            )
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
            model.reshape(list(shape))
            passes = Manager()
            passes.register_pass(
                ConstantFolding()
                # the bounds of 8-bit layers are else taken for what is computed, and the layers
                # stay
                # floats
            )
            passes.run_passes(model)
        except Exception as error:  # the frontend raises many kinds
            logging.getLogger(__name__).debug(
                "OpenVINO cannot take %s: %s", type(module).__name__, error
            )
            return None
    return model


def _read(file: Path) -> bytes | None:
    """What was kept, where it is whole."""
    try:
        raw = file.read_bytes()
    except OSError:
        return None
    return raw[_DIGEST:] if hashlib.sha256(raw[_DIGEST:]).digest() == raw[:_DIGEST] else None


def _write(file: Path, blob: Any) -> None:
    """Keep a graph; those of other models under this name are gone."""
    data = bytes(blob.getvalue() if hasattr(blob, "getvalue") else blob)
    try:
        atomic.make_folder(file.parent)
        atomic.write_bytes(file, hashlib.sha256(data).digest() + data)
    except OutputError:
        logging.getLogger(__name__).debug("%s cannot be written; nothing is kept", file)
        return
    model = file.name.split("-")[0]
    for other in file.parent.glob("*.graph"):
        if other.name.split("-")[0] != model:
            other.unlink(missing_ok=True)

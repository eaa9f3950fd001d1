"""The device that networks run on: the names a user may give, and what this machine has.

``refuse_unknown`` and ``device_for`` do not import torch unless it is needed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import PlanError, UsageError
from ..core.machine import cores
from ..extras import is_installed, require_extra
from . import openvino

if TYPE_CHECKING:
    import torch

ALLOWED = "auto, cpu, cuda, cuda:N or mps"
_NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def refuse_unknown(name: str) -> None:
    """Refuse a name that is not a supported device.

    Raises:
        UsageError: ``name`` is not one of ``ALLOWED``.
    """
    if not _NAMES.fullmatch(name):
        raise UsageError(f"unknown device {name!r}; allowed are {ALLOWED}")


def choose_device(name: str = "auto") -> torch.device:
    """The device named ``name``; "auto" is the first CUDA GPU if there is one, else the CPU. The
    GPU of a Mac, "mps", is used on request only, as it is not measured.

    Raises:
        UsageError: the name is unknown, torch is not installed, or this machine (or this
            build of torch) has no such GPU.
    """
    # Check the name first: importing torch is slow.
    refuse_unknown(name)
    require_extra("torch", "a network")
    import torch

    # A container may allow fewer cores than torch knows of, whatever the network runs on.
    if torch.get_num_threads() > cores():
        torch.set_num_threads(cores())
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise UsageError(
            "device mps was requested, but this machine or this build of torch has no Metal GPU; "
            "allowed here are auto and cpu"
        )
    if not torch.cuda.is_available():
        build = (
            "" if torch.version.cuda else f", and torch {torch.__version__} is a build without CUDA"
        )
        raise UsageError(
            f"device {name} was requested, but no CUDA GPU was found{build}; allowed here are "
            "auto and cpu"
        )
    # Of the name "cuda:N", N must exist; "cuda" alone means cuda:0.
    found = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= found:
        raise UsageError(
            f"device {name} was requested, but there are only {found} CUDA GPU(s), numbered from "
            "cuda:0"
        )
    return torch.device(name)


@dataclass(frozen=True)
class Cpu:
    """The CPU as a device of networks that are compiled, for which torch is not loaded."""

    type: str = "cpu"
    index: int | None = None

    def __str__(self) -> str:
        return self.type


def device_for(name: str = "auto", backend: str = "auto") -> torch.device | Cpu:
    """As ``choose_device``, for predictions: without torch where OpenVINO computes, on a CPU.

    Raises:
        UsageError: as ``choose_device``.
    """
    refuse_unknown(name)
    if not is_installed("torch"):
        require_extra("predict", "a network")
    on_cpu = name == "cpu" or (name == "auto" and not (may_have_gpu() and is_installed("torch")))
    return Cpu() if on_cpu and backend != "torch" and openvino.available() else choose_device(name)


def may_have_gpu() -> bool:
    """Whether this machine has a driver for GPUs that torch supports; then torch is asked."""
    if os.name == "nt":
        return os.path.exists(os.path.expandvars(r"%SystemRoot%\System32\nvcuda.dll"))
    places = ("nvidiactl", "nvidia0", "dxg", "kfd", "nvhost-gpu", "nvgpu")
    return any(os.path.exists(f"/dev/{place}") for place in places)


def fast_precision(device: torch.device | Cpu) -> str:
    """The fastest float type of the device: bfloat16 if it has hardware for it; otherwise float16
    on a GPU, float32 on a CPU.
    """
    if isinstance(device, Cpu):
        return openvino.fast_precision()
    import torch

    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if has else "float16"
    # A CPU computes bf16 fast only with AMX or AVX512-BF16.
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bfloat16" if device.type == "cpu" and (amx or bf16) else "float32"


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Inside the block torch uses only algorithms that give equal results on a repeat. On a CPU
    nothing changes: there all that the networks use are such.

    Raises:
        PlanError: the network has an operation without such an algorithm on this device.
    """
    if device.type == "cpu":
        yield
        return
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise PlanError(
            f"the network cannot be trained with --deterministic on this device ({error})"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]

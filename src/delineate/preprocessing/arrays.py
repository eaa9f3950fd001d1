"""One set of operations for NumPy arrays and torch tensors, so that a prediction needs no torch.

Importing torch takes longer than segmenting a small scan. Preprocessing, windows and restoring are
therefore written with these functions, each of which gives the kind of array that it is given: a
tensor where torch computes (training, a GPU, networks without a compiled graph), else an ndarray.
All follow NumPy's conventions (``axis``, order of axes); results are float32 unless stated. This
module imports torch only for tensors, or if the kind "torch" is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.machine import cores

if TYPE_CHECKING:
    from torch import Tensor

    Array: TypeAlias = Tensor | NDArray[Any]

Kind = Literal["numpy", "torch"]


def made(array: NDArray[Any], kind: Kind) -> Any:
    """The same memory as an array of ``kind``."""
    if kind == "numpy":
        return array
    import torch

    return torch.from_numpy(array)


def kind_of(x: Any) -> Kind:
    return "numpy" if isinstance(x, np.ndarray) else "torch"


def like(x: Any, array: NDArray[Any]) -> Any:
    """``array`` as the kind of ``x``, on its device."""
    if isinstance(x, np.ndarray):
        return array
    return made(array, "torch").to(x.device)


def to_numpy(x: Any) -> NDArray[Any]:
    """The values of ``x`` on the CPU."""
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()


def moved(x: Any, device: Any) -> Any:
    """``x`` on ``device``, which for an ndarray is the CPU."""
    return x if isinstance(x, np.ndarray) else x.to(str(device))


def on_cpu(x: Any) -> bool:
    return isinstance(x, np.ndarray) or x.device.type == "cpu"


def empty(x: Any, shape: Sequence[int]) -> Any:
    """An array of the kind and dtype of ``x``, on its device."""
    if isinstance(x, np.ndarray):
        return np.empty(tuple(shape), x.dtype)
    return x.new_empty(tuple(shape))


def zeros(x: Any, shape: Sequence[int], dtype: str = "float32") -> Any:
    """Zeros of the kind of ``x``, on its device."""
    if isinstance(x, np.ndarray):
        return np.zeros(tuple(shape), dtype)
    import torch

    kind = getattr(torch, dtype)
    return torch.zeros(tuple(shape), dtype=kind, device=x.device)


def cast(x: Any, dtype: str) -> Any:
    """``x`` as ``dtype``; itself if it has that dtype."""
    if isinstance(x, np.ndarray):
        return x.astype(dtype, copy=False)
    import torch

    return x.to(getattr(torch, dtype))


def counts(x: Any, like: Any) -> Any:
    """Boolean ``x`` as 0 and 1 of the dtype of ``like``; for uint8 in the memory of ``x``."""
    if isinstance(x, np.ndarray):
        return x.view(np.uint8).astype(like.dtype, copy=False)
    import torch

    return x.view(torch.uint8).to(like.dtype)


def float32(x: Any) -> Any:
    return cast(x, "float32")


def concatenated(parts: Sequence[Any], axis: int = 0) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis)
    import torch

    return torch.cat(list(parts), axis)


def stacked(parts: Sequence[Any]) -> Any:
    """The parts along a new first axis."""
    if isinstance(parts[0], np.ndarray):
        return np.stack(parts)
    import torch

    return torch.stack(list(parts))


def transposed(x: Any, axes: Sequence[int]) -> Any:
    if isinstance(x, np.ndarray):
        return x.transpose(*axes)
    return x.permute(*axes)


def axis_moved(x: Any, source: int, target: int) -> Any:
    if isinstance(x, np.ndarray):
        return np.moveaxis(x, source, target)
    return x.movedim(source, target)


def flipped(x: Any, axes: Sequence[int]) -> Any:
    """``x`` in reverse order along ``axes``."""
    if isinstance(x, np.ndarray):
        return np.flip(x, tuple(axes))
    return x.flip(tuple(axes))


def chosen(x: Any, index: NDArray[np.intp], axis: int = 0) -> Any:
    """The entries ``index`` along ``axis``."""
    if isinstance(x, np.ndarray):
        return x.take(index, axis)
    return x.index_select(axis, like(x, index))


def lowest(x: Any, axis: int | tuple[int, ...], keepdims: bool = False) -> Any:
    if isinstance(x, np.ndarray):
        return x.min(axis, keepdims=keepdims)
    return x.amin(axis, keepdim=keepdims)


def highest(x: Any, axis: int | tuple[int, ...], keepdims: bool = False) -> Any:
    if isinstance(x, np.ndarray):
        return x.max(axis, keepdims=keepdims)
    return x.amax(axis, keepdim=keepdims)


def keep_larger(x: Any, other: Any) -> None:
    """Replace each value of ``x`` by that of ``other`` where it is larger."""
    if isinstance(x, np.ndarray):
        np.maximum(x, other, out=x)
        return
    import torch

    torch.maximum(x, other, out=x)


def clip(x: Any, low: Any, high: Any) -> None:
    """Clip ``x`` in place; None is no bound."""
    if isinstance(x, np.ndarray):
        np.clip(x, low, high, out=x)
    else:
        x.clamp_(low, high)


def multiply(a: Any, b: Any, out: Any) -> None:
    """Write the matrix product of ``a`` and ``b`` to ``out``."""
    if isinstance(a, np.ndarray):
        np.matmul(a, b, out=out)
        return
    import torch

    torch.mm(a, b, out=out)


def softmax(x: Any, axis: int) -> Any:
    if isinstance(x, np.ndarray):
        found = x - x.max(axis, keepdims=True)
        np.exp(found, out=found)
        found /= found.sum(axis, keepdims=True)
        return found
    return x.softmax(axis)


def sigmoid(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-x))
    return x.sigmoid()


def rounded(x: Any) -> Any:
    return np.rint(x) if isinstance(x, np.ndarray) else x.round()


def logarithm(x: Any) -> Any:
    return np.log(x) if isinstance(x, np.ndarray) else x.log()


def along(x: Any, index: NDArray[np.int64], axis: int) -> Any:
    """The values of ``x`` at ``index`` along ``axis``; the other axes of ``index`` have the length
    of those of ``x``, or 1.
    """
    size = (*x.shape[:axis], index.shape[axis], *x.shape[axis + 1 :])
    if isinstance(x, np.ndarray):
        return np.take_along_axis(x, np.broadcast_to(index, size), axis)
    return x.take_along_dim(like(x, index).expand(size), dim=axis)


def between(x: Any, other: Any, share: Any) -> Any:
    """``x``, or ``other`` where ``share`` is 1, or between the two."""
    if isinstance(x, np.ndarray):
        return x + share * (other - x)
    return x.lerp(other, share)


def as_in(x: Any, other: Any) -> Any:
    """``other`` with the dtype of ``x``, on its device."""
    if isinstance(x, np.ndarray):
        return other.astype(x.dtype, copy=False)
    return other.to(x.device, x.dtype)


def add_share(x: Any, other: Any, share: float) -> None:
    """Add ``share`` times ``other`` to ``x``, in place."""
    if isinstance(x, np.ndarray):
        x += other * np.float32(share)
    else:
        x.add_(other.to(x.device), alpha=share)


def ends(x: Any) -> tuple[float, float]:
    """Lowest and highest value."""
    low, high = (x.min(), x.max()) if isinstance(x, np.ndarray) else x.aminmax()
    return float(low), float(high)


def padded(x: Any, pads: Sequence[tuple[int, int]]) -> Any:
    """Zeros before and after ``x`` along each axis."""
    if isinstance(x, np.ndarray):
        return np.pad(x, pads)
    from torch.nn import functional

    # torch expects the last axis first.
    return functional.pad(x, [n for pair in reversed(pads) for n in pair])


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Inside the block, tensors record no gradients."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    with torch.inference_mode():
        yield


def threads() -> int:
    """Threads to compute with: those of torch if it is loaded, else those it would use."""
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    return threads_of_new_process()


@functools.cache
def threads_of_new_process() -> int:
    """The number of threads that torch would choose in this process (OMP_NUM_THREADS, else the
    physical cores), or fewer where fewer cores may be used.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if stated.isdigit() and int(stated) > 0:
        return min(int(stated), cores())
    import psutil

    return min(psutil.cpu_count(logical=False) or cores(), cores())

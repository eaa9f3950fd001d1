"""A child process for code of other projects that damaged files can crash, hang or blow up.

Codecs of DICOM and the reader of HDF5 always run there; inside ``untrusted``, all readers do
(``files``).

One child serves many calls, one at a time; calls of several threads get a child each, up to the
number of cores. A child has a limit of memory and of time for each call; if it dies or exceeds one,
that call fails, the next call gets a new child, and this process goes on. Results
return as JSON and raw arrays, so nothing that the child sends can run code here. This module knows
no format.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core import errors
from ..core.errors import DelineateError, FormatError
from ..core.inputs import limit_memory, parse_json
from ..core.machine import cores
from .disk import read_into

START_S = 120.0  # until the child has imported what it needs, also on a busy machine
CPU_S, CPU_S_A_MB = 4.0, 0.05  # for a small file, and for each MB of its voxels
WALL_SHARE = 15  # time on the clock for each second of computing, on a busy machine or a slow disk
ORPHAN_SHARE = 2  # of the time of computing, after which a child without its parent ends
SPARE_BYTES, COPIES = 1 << 30, 8  # memory of a call: this, and so many copies of its voxels
Found = tuple[dict[str, Any], Sequence[NDArray[Any]]]  # what a call returns: facts, and arrays
_CALLS = threading.BoundedSemaphore(cores())
_IDLE: list[_Child] = []
UNTRUSTED = "DELINEATE_UNTRUSTED"  # of the environment, so that processes started here know it
_SERVING = threading.Event()  # set in the child


@contextlib.contextmanager
def untrusted(given: bool = True) -> Iterator[None]:
    """Inside the block files are read in the child, also by processes that are started there; False
    changes nothing.
    """
    before = os.environ.get(UNTRUSTED)
    if given:
        os.environ[UNTRUSTED] = "1"
    try:
        yield
    finally:
        # Without a moment between the two, in which another thread would trust a file.
        if before is None:
            os.environ.pop(UNTRUSTED, None)
        else:
            os.environ[UNTRUSTED] = before


def is_untrusted() -> bool:
    """Whether files are to be read in the child."""
    return os.environ.get(UNTRUSTED, "0") not in ("", "0")


def is_child() -> bool:
    """Whether this process is a child."""
    return _SERVING.is_set()


def call(function: str, *arguments: Any, nbytes: int = 0) -> Found:
    """Call a function of this package in the child; from there, directly.

    Args:
        function: "module:name" below ``delineate.formats``; it returns ``Found``.
        arguments: plain data.
        nbytes: of the voxels that are expected.

    Raises:
        DelineateError: what the function raised.
        FormatError: it crashed, or took more time or memory than allowed.
    """
    if is_child():
        return _named(function)(*arguments)
    with _CALLS:
        child, is_sound = _idle() or _Child(), False
        try:
            found = child.call(function, arguments, nbytes)
            is_sound = True
            return found
        except DelineateError:
            is_sound = True
            raise
        except _LostError as lost:
            raise FormatError(f"damaged: {lost}") from None
        finally:
            if is_sound:
                _IDLE.append(child)
            else:
                child.end()


def end_idle() -> None:
    """End the children that wait for a call: they have the folder and the environment in which they
    were started.
    """
    while (child := _idle()) is not None:
        child.end()


def _without_credentials() -> dict[str, str]:
    """The environment without what archives accept from this program (``dicom.remote.access``)."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DELINEATE_DICOMWEB_")}


def _idle() -> _Child | None:
    """A child that waits for a call; None if there is none."""
    while _IDLE:
        with contextlib.suppress(IndexError):  # another thread has got it
            child = _IDLE.pop()
            if child.is_alive:
                return child
    return None


class _LostError(Exception):
    """The child did not answer; the message says why."""


class _Child:
    """A running child."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_without_credentials() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for this process, which may finish its step
        )
        atexit.register(self.end)
        self._line(START_S, None)

    @property
    def is_alive(self) -> bool:
        """Whether calls can be made; not from a forked copy of this process."""
        return self._process.poll() is None and self._owner == os.getpid()

    def end(self) -> None:
        atexit.unregister(self.end)
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()

    def call(self, function: str, arguments: Sequence[Any], nbytes: int) -> Found:
        cpu_s = CPU_S + CPU_S_A_MB * nbytes / 2**20
        request = {
            "function": function,
            "arguments": arguments,
            "memory": SPARE_BYTES + COPIES * nbytes,
            "cpu_s": cpu_s,
            "folder": os.getcwd(),
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise _LostError("its reader has ended") from None
        head = parse_json(self._line(WALL_SHARE * cpu_s, cpu_s))
        if error := head.get("error"):
            kind = getattr(errors, error["kind"], DelineateError)
            raise kind(error["message"], path=error["path"])
        return head["facts"], [self._array(**one) for one in head["arrays"]]

    def _array(self, dtype: str, shape: Sequence[int], axes: Sequence[int]) -> NDArray[Any]:
        array = np.empty(shape, np.dtype(dtype))
        assert self._process.stdout is not None
        if read_into(self._process.stdout, array) < array.nbytes:
            raise _LostError("its reader has ended")
        return array.transpose(np.argsort(axes))

    def _line(self, wall_s: float, cpu_s: float | None) -> bytes:
        """The next line of the child within a time on the clock and a time of computing."""
        import psutil

        out = self._process.stdout
        assert out is not None
        watched, line, begun = psutil.Process(self._process.pid), b"", time.monotonic()
        used = sum(watched.cpu_times()[:2])
        while not line.endswith(b"\n"):
            if select.select([out], [], [], 0.1)[0]:
                got = out.readline()
                if not got:
                    code = self._process.wait()
                    raise _LostError(f"its reader crashed ({_reason(code)})")
                line += got
                continue
            spent = sum(watched.cpu_times()[:2]) - used
            if time.monotonic() - begun > wall_s or (cpu_s is not None and spent > cpu_s):
                raise _LostError(f"its reader did not finish within {cpu_s or wall_s:.0f} s")
        return line


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _named(function: str) -> Callable[..., Found]:
    module, _, name = function.partition(":")
    return getattr(  # type: ignore[no-any-return]
        importlib.import_module(f".{module}", __package__), name
    )


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child's loop: one JSON line a request; a JSON line and raw arrays as the answer."""
    answers.write(b"\n")
    answers.flush()
    for line in requests:
        request = parse_json(line)
        os.chdir(request["folder"])
        limit_memory(request["memory"])
        _limit_time(ORPHAN_SHARE * request["cpu_s"])
        head, arrays = _answer(request["function"], request["arguments"])
        answers.write(head + b"\n")
        for one in arrays:
            answers.write(memoryview(one.reshape(-1).view(np.uint8).data))
        answers.flush()


def _answer(function: str, arguments: Sequence[Any]) -> tuple[bytes, Sequence[NDArray[Any]]]:
    """The line and the arrays for one request. Arrays are sent in the order in which they are in
    memory, with their axes.
    """
    message = "needs more memory than is allowed"
    try:
        facts, arrays = _named(function)(*arguments)
        axes = [sorted(range(a.ndim), key=lambda n: -abs(a.strides[n])) for a in arrays]
        arrays = [np.asarray(a.transpose(n), order="C") for a, n in zip(arrays, axes, strict=True)]
        parts = [
            {"dtype": a.dtype.str, "shape": a.shape, "axes": n}
            for a, n in zip(arrays, axes, strict=True)
        ]
        return json.dumps({"facts": facts, "arrays": parts}).encode(), arrays
    except DelineateError as error:
        kind, message, path = type(error).__name__, error.message, error.path
    except MemoryError:
        kind, path = FormatError.__name__, None
    return json.dumps({"error": {"kind": kind, "message": message, "path": path}}).encode(), ()


def _limit_time(cpu_s: float) -> None:
    """End this process after so much more computing, if the parent that watches it is gone."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + cpu_s) + 1, hard))


def main() -> None:
    """Run as the child: requests come from the standard input, answers go to the standard
    output.
    """
    _SERVING.set()
    # Libraries print to the standard output; the answers have a channel of their own.
    own = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(own, "wb") as answers:
        _serve(sys.stdin.buffer, answers)

"""A child process for code of other projects that damaged files can crash, hang or blow up: codecs.

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
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core import errors
from ..core.errors import DelineateError, FormatError
from ..core.inputs import parse_json

START_S = 120.0  # until the child has imported what it needs, also on a busy machine
CPU_S, WALL_S = 4.0, 60.0  # for a small file; more for each MB of its voxels
CPU_S_A_MB = 0.05
SPARE_BYTES, COPIES = 1 << 30, 8  # memory of a call: this, and so many copies of its voxels
Found = tuple[dict[str, Any], Sequence[NDArray[Any]]]  # what a call returns: facts, and arrays
_CALLS = threading.BoundedSemaphore(os.cpu_count() or 1)
_IDLE: list[_Child] = []


def call(function: str, *arguments: Any, nbytes: int = 0) -> Found:
    """Call a function of this package in the child.

    Args:
        function: "module:name" below ``delineate.formats``; it returns ``Found``.
        arguments: plain data.
        nbytes: of the voxels that are expected.

    Raises:
        DelineateError: what the function raised.
        FormatError: it crashed, or took more time or memory than allowed.
    """
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
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            bufsize=0,
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
        request = {"function": function, "arguments": arguments, "nbytes": nbytes}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            raise _LostError("its reader has ended") from None
        head = parse_json(self._line(WALL_S, CPU_S + CPU_S_A_MB * nbytes / 2**20))
        if error := head.get("error"):
            kind = getattr(errors, error["kind"], DelineateError)
            raise kind(error["message"], path=error["path"])
        arrays = [self._array(one["dtype"], one["shape"]) for one in head["arrays"]]
        return head["facts"], arrays

    def _array(self, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        array = np.empty(shape, np.dtype(dtype))
        view = memoryview(array.reshape(-1).view(np.uint8).data)
        assert self._process.stdout is not None
        while len(view):
            got = self._process.stdout.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise _LostError("its reader has ended")
            view = view[got:]
        return array

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


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child's loop: one JSON line a request; a JSON line and raw arrays as the answer."""
    answers.write(b"\n")
    answers.flush()
    for line in requests:
        request = parse_json(line)
        _limit_memory(SPARE_BYTES + COPIES * request["nbytes"])
        module, _, name = request["function"].partition(":")
        arrays: Sequence[NDArray[Any]] = ()
        try:
            function = getattr(importlib.import_module(f".{module}", __package__), name)
            facts, arrays = function(*request["arguments"])
            arrays = [np.ascontiguousarray(one) for one in arrays]
            parts = [{"dtype": one.dtype.str, "shape": one.shape} for one in arrays]
            head: dict[str, Any] = {"facts": facts, "arrays": parts}
        except DelineateError as error:
            kind = type(error).__name__
            head = {"error": {"kind": kind, "message": error.message, "path": error.path}}
        except MemoryError:
            message = "needs more memory than is allowed"
            head = {"error": {"kind": "FormatError", "message": message, "path": None}}
        answers.write(json.dumps(head).encode() + b"\n")
        for one in arrays:
            answers.write(memoryview(one.reshape(-1).view(np.uint8).data))
        answers.flush()


def _limit_memory(nbytes: int) -> None:
    """Limit the address space of this process to what it has now and ``nbytes``, where the system
    can.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        import psutil

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        allowed = psutil.Process().memory_info().vms + nbytes
        if hard != resource.RLIM_INFINITY:
            allowed = min(allowed, hard)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


if __name__ == "__main__":
    # Libraries print to the standard output; the answers have a channel of their own.
    own = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(own, "wb") as answers:
        _serve(sys.stdin.buffer, answers)

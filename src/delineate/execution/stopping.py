"""Stopping on a signal: SIGINT (Ctrl-C), SIGTERM, SIGHUP, and SIGUSR1, which Slurm sends before the
end of a job.

A signal raises ``StopSignal`` where the program is. Inside ``at_steps`` it is only noted, and the
work asks for it at its next step, so that it can save everything first; a second signal raises even
there. One after that ends the process at once, as one before and after the command does
(``leave_at_once``). Files are complete at any moment (``core.atomic``), so what was saved before is
kept in each of these cases.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows lacks the last two
AGAIN_AFTER_S = 0.05  # a signal that was raised where Python ignores errors


class StopSignal(BaseException):
    """A signal that ends the work; finished work is kept. No error, so that no code that handles
    errors of one case catches it.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _Requests:
    """Signals that were noted, and whether the running work wants them noted."""

    def __init__(self) -> None:
        self.noted: int | None = None
        self.raised: int | None = None
        self.while_loading = False
        self.deferring = False
        self.announce: Callable[[str], None] = lambda text: None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.deferring and self.noted is None:
            self.noted = number
            self.announce("stopping at the next step; a second signal stops at once")
            return
        self.noted, self.raised, self.while_loading = None, number, _is_loading(frame)
        _restore()
        raise StopSignal(number)

    def raise_noted(self) -> None:
        """Raise ``StopSignal`` for a signal that was noted, once."""
        number, self.noted = self.noted, None
        if number is not None:
            raise StopSignal(number)


_requests = _Requests()


def last_raised() -> int | None:
    """The number of the signal that was raised since the last call of this function; None if there
    was none. Code in C, such as an extension that is being imported, may turn it into another
    error.
    """
    number, _requests.raised = _requests.raised, None
    return number


def raised_while_loading() -> bool:
    """Whether the last signal that was raised came while a module was being imported: that one, or
    another that it imports, may not work from then on.
    """
    return _requests.while_loading


def _is_loading(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


_before: dict[int, object] = {}


def leave_at_once() -> None:
    """From now on a signal outside ``stoppable`` ends the process with 128 + n and no traceback:
    while modules are loaded, and while Python ends. Handlers of others, and ignored signals, stay.
    """
    for number in _numbers():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, lambda number, frame: os._exit(128 + number))


def _numbers() -> Iterator[int]:
    return (getattr(signal, name) for name in STOPPING if hasattr(signal, name))


@contextlib.contextmanager
def stoppable(announce: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Handle the signals inside the block; does nothing outside the main thread, which alone
    receives signals. An ignored signal (``nohup``) stays ignored. Blocks may be in each other.

    Args:
        announce: called with a sentence when a signal is noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, announced = dict(_before), _requests.announce
    _before.clear()
    _requests.noted, _requests.announce = None, announce
    _handle_all()
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_swallowed, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        _requests.noted, _requests.announce = None, announced
        _restore()
        _before.update(outer)


def _handle_all() -> None:
    for number in _numbers():
        if signal.getsignal(number) != signal.SIG_IGN:
            _before[number] = signal.signal(number, _requests.handle)


def _swallowed(hook: Callable[[Any], object], found: Any) -> None:
    """Send a signal again that was raised where Python ignores all errors: in a finaliser, or in
    the collection of garbage. Other errors go to the hook before.
    """
    if not isinstance(found.exc_value, StopSignal):
        hook(found)
        return
    _handle_all()
    # Later, as Python is still where errors are ignored.
    again = threading.Timer(AGAIN_AFTER_S, os.kill, (os.getpid(), found.exc_value.number))
    again.daemon = True
    again.start()


@contextlib.contextmanager
def withheld() -> Iterator[None]:
    """Processes that are started in the block do not receive the signals, except SIGTERM, which
    this process sends to end them; a terminal and Slurm send signals to all processes of a job.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_numbers()} - {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def at_steps() -> Iterator[None]:
    """Inside the block a first signal is only noted; the end of the block raises ``StopSignal`` for
    it. Work in the block asks ``requested`` at each step and leaves the block if there is one.
    """
    with _deferring(True):
        yield
    _requests.raise_noted()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Inside the block, which is in one of ``at_steps``, a signal raises where the program is."""
    _requests.raise_noted()
    with _deferring(False):
        yield


@contextlib.contextmanager
def _deferring(value: bool) -> Iterator[None]:
    before, _requests.deferring = _requests.deferring, value
    try:
        yield
    finally:
        _requests.deferring = before


@contextlib.contextmanager
def asked(ask: Callable[[], bool], every_s: float) -> Iterator[None]:
    """In the block SIGTERM is noted, as if it had arrived, once ``ask`` is true: for a process that
    is asked by a file, because the one that asks may be on another machine.

    Args:
        ask: called in a thread.
        every_s: seconds between two calls.
    """
    done = threading.Event()

    def look() -> None:
        while not done.wait(every_s):
            if _requests.noted is None and ask():
                _requests.noted = signal.SIGTERM

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()
        _requests.noted = None


def requested() -> int | None:
    """The number of the signal that was noted; None if there was none."""
    return _requests.noted


def _restore() -> None:
    while _before:
        number, handler = _before.popitem()
        signal.signal(number, handler)  # type: ignore[arg-type]

"""The resident engine: models stay compiled, and ``predict`` of other processes runs here.

The main thread runs one call after another, as a process of its own would; a thread accepts calls
and answers what needs no turn. It ends after a time without calls, above its limit of memory once
nothing is left to drop, and when its program has changed. It knows no command: the caller gives it
the function that runs one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any

from ... import formats
from ...core.errors import OutputError, UsageError
from ...core.inputs import parse_json
from ...core.machine import memory_bytes
from ...core.progress import Say, unsaid
from ...core.words import data_size, duration
from ...execution import claims, resident
from ...execution.stopping import STOPPING, StopSignal, raised_while_loading
from ...formats import apart
from ..options import ServeOptions
from ..predict.kept import Kept, keeping
from .calls import Call, Program, in_place_of, silence

log = logging.getLogger(__name__)

MOST_WAITING = 64  # calls in the queue
MODELS_SHARE = 0.25  # of the machine's memory for models, unless a limit is given
UNFORESEEN = 70  # exit code
LEFT_S = 20.0  # until threads of a call that a signal has ended have ended too
COLLECTED_EVERY_S = 0.1  # meanwhile
STOPPED_S = 5.0  # until an engine that is asked to stop has removed its socket
Run = Callable[[Sequence[str], str], int]  # words of a command line, and name of the program
_running: Resident | None = None


class Declined(BaseException):
    """The call at work is for the process that made it. No error, so that nothing catches it."""


class Resident:
    """The engine of this process; a context manager that owns the socket.

    Args:
        run: runs a command line, and returns its exit code.
        options: see ``commands.options``.
        say: receives where it listens, and why it ends.
    """

    def __init__(self, run: Run, options: ServeOptions = ServeOptions(), say: Say = unsaid):
        self._run, self._say = run, say
        self.idle_s = options.idle_s
        self._most_bytes = options.memory_bytes or int(MODELS_SHARE * memory_bytes())
        self._program = Program.running()
        self._kept = Kept()
        self._waiting: queue.Queue[Call | None] = queue.Queue(MOST_WAITING)
        self._guard = threading.Lock()  # of ``_at_work``
        self._at_work: Call | None = None
        self._forwarded = 0
        self._calls = 0
        self._place: tuple[str, os.stat_result] | None = None
        self._ending = ""

    def __enter__(self) -> Resident:
        """Open the socket.

        Raises:
            OutputError: another engine has it, or the folder cannot be made private.
        """
        global _running
        path, folder = resident.socket_path(), resident.folder()
        if len(os.fsencode(path)) > resident.MOST_PATH_BYTES:
            raise OutputError(
                f"has more than {resident.MOST_PATH_BYTES} bytes, which no name of a socket may "
                "have; set XDG_RUNTIME_DIR to a folder with a shorter name",
                path=path,
            )
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot be made ({error.strerror})", path=folder) from error
        if not resident.is_private(folder):
            raise OutputError(
                "must be a folder of this user that nobody else can enter (chmod 700)", path=folder
            )
        self._lock = _locked(path.removesuffix(".sock") + ".lock")
        with contextlib.suppress(FileNotFoundError):  # of an engine that was killed
            os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            os.umask(mask)
        self._socket.listen(MOST_WAITING)
        self._inode = os.stat(path).st_ino
        threading.Thread(target=self._accept, daemon=True).start()
        _running = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _running
        _running = None
        with contextlib.suppress(OSError):
            if os.stat(resident.socket_path()).st_ino == self._inode:
                os.unlink(resident.socket_path())
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(queue.Empty):
            while True:
                if (call := self._waiting.get_nowait()) is not None:
                    call.close()
        os.close(self._lock)

    def serve(self) -> None:
        """Run calls until it ends.

        Raises:
            StopSignal: a signal to this process.
        """
        # A process that stays, for those that calls start. Begun by a call, it would keep the
        # streams of that call open, and who reads them would wait for their end.
        resource_tracker.ensure_running()
        with keeping(self._kept):
            while not self._ending:
                try:
                    call = self._waiting.get(timeout=self.idle_s)
                except queue.Empty:
                    self._ending = f"{duration(self.idle_s)} without a call"
                    break
                if call is None:
                    break
                try:
                    self._answer(call)
                finally:
                    call.close()
                del call
                self._make_room()
        self._say(f"ended: {self._ending}")

    # ---- calls, in a thread ----

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            try:
                call = Call.received(connection)
            except (ValueError, OSError) as error:
                log.debug("a call was refused: %s", error)
                connection.close()
                continue
            if not self._is_queued(call):
                call.close()

    def _is_queued(self, call: Call) -> bool:
        """Put a call in the queue, or answer it at once."""
        if call.do == "status":
            call.answer(json.dumps(self.facts()))
        elif call.do == "stop":
            # In this order: the process may end before this thread goes on.
            call.answer(resident.READY)
            self._end("stopped")
        elif self._ending:
            call.answer(resident.REFUSED)
        elif not self._program.is_unchanged():
            self._end("the program has changed")
            call.answer(resident.REFUSED, "delineate or a package was changed since it started")
        elif why := self._program.refusal(call):
            call.answer(resident.REFUSED, why)
        else:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(call)
                return True
            call.answer(resident.REFUSED)
        return False

    def _end(self, why: str) -> None:
        self._ending = self._ending or why
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)

    def facts(self) -> dict[str, Any]:
        """What ``status`` shows."""
        return {
            "process": os.getpid(),
            "version": self._program.parts["version"],
            "socket": resident.socket_path(),
            "models": self._kept.names(),
            "calls": self._calls,
            "busy": self._at_work is not None,
            "waiting": self._waiting.qsize(),
            "memory": data_size(_resident_bytes()),
            "memory limit": data_size(self._most_bytes),
            "ends after": f"{duration(self.idle_s)} without a call",
        }

    # ---- the call at work, in the main thread ----

    def _answer(self, call: Call) -> None:
        if not call.begins():
            return
        self._calls += 1
        log.debug("call %d: %s", self._calls, call.words)
        main = threading.get_ident()
        with self._guard:
            self._at_work, self._forwarded = call, 0
        threading.Thread(target=self._follow, args=(call, main), daemon=True).start()
        before = set(threading.enumerate())
        try:
            _reset_peak()
            with in_place_of(call):
                self._enter_folder()
                try:
                    code = self._run(call.words, call.name)
                finally:
                    self._settle()
                    if self._forwarded:
                        self._clear(before)
        except Declined:
            call.answer(resident.REFUSED)
            return
        except (OSError, StopIteration):  # the process has ended
            return
        except StopSignal as stop:  # outside the call itself
            code = 128 + stop.number
        finally:
            self._settle()
        number = code - 128
        if self._forwarded:
            code = 128 + self._forwarded if number > 0 else code
            if raised_while_loading():
                self._ending = "a call was stopped while it loaded modules"
        elif number in [getattr(signal, name) for name in STOPPING]:
            raise StopSignal(number)
        call.answer(resident.CODE, code)

    def _enter_folder(self) -> None:
        """Forget what was kept by relative paths, if the folder is not that of the last call."""
        place, before = (os.getcwd(), os.stat(".")), self._place
        self._place = place
        if before and before[0] == place[0] and os.path.samestat(before[1], place[1]):
            return
        apart.end_idle()
        for name, module in tuple(sys.modules.items()):
            if name.startswith(formats.__name__):
                for one in tuple(vars(module).values()):
                    if hasattr(one, "cache_clear"):
                        one.cache_clear()

    def _follow(self, call: Call, main: int) -> None:
        """Pass the signals of a call on to the main thread, in which it runs."""
        for number in call.signals():
            with self._guard:
                if self._at_work is not call or self._forwarded:
                    return
                if not number:
                    silence()
                self._forwarded = number or signal.SIGTERM
                ignored = signal.getsignal(self._forwarded) == signal.SIG_IGN
                signal.pthread_kill(main, signal.SIGTERM if ignored else self._forwarded)

    def _settle(self) -> None:
        """No signal is passed on from now on. One that has not arrived yet ends nothing."""
        for _ in range(2):
            with contextlib.suppress(StopSignal), self._guard:
                self._at_work = None
        if self._forwarded:
            with contextlib.suppress(StopSignal):
                time.sleep(0.001)

    def _clear(self, before: Set[threading.Thread]) -> None:
        """Let the threads of a call end that a signal may have ended anywhere, and release its
        claims, while this process is in its place. Else this process ends.
        """
        claims.release_left()
        # Pools without a name of ours only read.
        threads = {
            thread
            for thread in set(threading.enumerate()) - before
            if not thread.name.startswith("ThreadPoolExecutor")
        }
        until = time.monotonic() + LEFT_S
        while threads and time.monotonic() < until:
            # Pools without an owner end their threads. What a thread does may own its pool, so
            # that only a collection after it finds that.
            gc.collect()
            for thread in threads:
                thread.join(COLLECTED_EVERY_S)
            threads = {thread for thread in threads if thread.is_alive()}
        if threads:
            self.__exit__(None, None, None)
            os._exit(UNFORESEEN)

    def _make_room(self) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            self._kept.leave_room(_gpu_memory)
        while _resident_bytes() > self._most_bytes:
            if not self._kept.drop_one():
                self._ending = self._ending or "its memory is above the limit with no model left"
                return
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):  # not of every libc
                ctypes.CDLL(None).malloc_trim(0)


def _locked(path: str) -> int:
    """A descriptor with the only lock of a file, which ends with this process.

    Raises:
        OutputError: another process has it.
    """
    import fcntl  # not on every system

    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", path=path) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise OutputError(
            "a resident engine runs here already; `delineate serve --local --status` shows it",
            path=resident.folder(),
        ) from None
    return lock


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _gpu_memory(device: Any) -> tuple[int, int]:
    """Free and whole memory of a GPU, after torch has given back what it does not use."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    free, whole = torch.cuda.mem_get_info(device)
    return int(free), int(whole)


def _reset_peak() -> None:
    """Start to measure the largest memory of this process again."""
    with contextlib.suppress(OSError):
        handle = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(handle, b"5")
        finally:
            os.close(handle)


# ---- for the command line ----


def serve(options: ServeOptions = ServeOptions(), *, run: Run, say: Say = unsaid) -> None:
    """Run the resident engine until it ends.

    Args:
        options: see ``commands.options``.
        run: runs a command line, and returns its exit code.
        say: receives where it listens, and why it ends.

    Raises:
        UsageError: this system cannot tell who connects to a socket.
        OutputError: another engine runs, or the folder of the socket is not private.
        StopSignal: a signal to this process.
    """
    if not resident.is_supported():
        raise UsageError("serve --local needs Linux, which states who connects to a socket")
    with Resident(run, options, say) as engine:
        say(
            f"resident engine in process {os.getpid()}; ends after {duration(engine.idle_s)} "
            "without a call"
        )
        engine.serve()


def keep_for(seconds: float) -> bool:
    """Let the engine in which this runs wait for at least so long; False elsewhere."""
    if _running is not None:
        _running.idle_s = max(_running.idle_s, seconds)
    return _running is not None


def decline() -> None:
    """Give the call at work back to the process that made it; does nothing outside an engine."""
    if _running is not None:
        raise Declined


@contextlib.contextmanager
def _asking(do: str) -> Iterator[tuple[Iterator[str], int] | None]:
    found = resident.connected() if resident.is_supported() else None
    if found is None:
        yield None
        return
    connection, pid = found
    with connection:
        resident.send(connection, resident.request(do))
        yield resident.lines(connection), pid


def status() -> dict[str, Any] | None:
    """What the engine of this user does; None if there is none, or it does not answer."""
    with contextlib.suppress(OSError, ValueError), _asking("status") as asked:
        if asked is not None:
            found: dict[str, Any] = parse_json(next(asked[0], "{}"))
            return found or None
    return None


def stop() -> bool:
    """Let the engine of this user end after the call at work; whether there is one."""
    with contextlib.suppress(OSError, ValueError), _asking("stop") as asked:
        if asked is not None and next(asked[0], "") == resident.READY:
            until = time.monotonic() + STOPPED_S
            while resident.is_there() and time.monotonic() < until:
                time.sleep(0.01)
            return True
    return False

"""A call of ``predict`` by the resident engine, before anything that takes time is imported.

The engine runs the same command with this process's arguments, streams, folder and environment, so
that results, messages and exit codes are those of this process. Where that is not possible,
``served`` returns None and the caller does the work itself. A signal to this process ends the
call, not the engine.
"""

from __future__ import annotations

import os
import sys

from ..execution import resident

TYPE_CHECKING = False  # type checkers read it as true; to import ``typing`` needs 20 ms
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from types import FrameType

COMMAND = "predict"
KEEP = "--keep"
PATIENCE_S = 2.0  # in the queue of a busy engine; about what a start without it takes
START_S = 60.0  # until an engine that was started here has loaded its modules
ASKED_EVERY_S = 0.02
WITH_VALUE = ("--config", "--log", "--log-format")  # options before the command that have a value

note = ""  # why the engine is not used, for the user


def served(words: Sequence[str]) -> int | None:
    """The exit code of the command line ``words``, if the engine has done it; else None."""
    global note
    note = ""
    if not resident.is_supported() or not _is_suitable(words):
        return None
    found = resident.connected()
    if found is None and (duration := _value_of(KEEP, words)) is not None:
        found = _started(duration)
    if found is None:
        return None
    connection, _ = found
    with connection:
        try:
            return _asked(connection, words)
        except OSError:
            return None


def _is_suitable(words: Sequence[str]) -> bool:
    """Whether it is a call of ``predict`` that another process can do. Names of descriptors and
    engines of other machines belong to this one.
    """
    if _command_of(words) != COMMAND:
        return False
    if any("/dev/" in word or "/proc/" in word or word.startswith("--engine") for word in words):
        return False
    return all(_is_open(descriptor) for descriptor in range(3))


def _command_of(words: Sequence[str]) -> str:
    """The command, behind the options of all commands; "" if there is none."""
    left = iter(words)
    for word in left:
        if not word.startswith("-"):
            return word
        if word in WITH_VALUE:
            next(left, None)
    return ""


def _value_of(option: str, words: Sequence[str]) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option and following:
            return following
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _started(duration: str) -> tuple[socket.socket, int] | None:
    """A connection to an engine that is started in the background and ends after ``duration``
    without work; None if it does not start.
    """
    import subprocess
    import time

    global note
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    command = [sys.executable, *flags, "-P", "-m", "delineate", "serve", "--local"]
    try:
        os.makedirs(resident.folder(), 0o700, exist_ok=True)
        if not resident.is_private(resident.folder()):
            note = f"no resident engine: others can enter {resident.folder()}"
            return None
        log = os.open(resident.log_path(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        note = f"no resident engine: {resident.folder()} cannot be written ({error.strerror})"
        return None
    try:
        process = subprocess.Popen(
            [*command, "--idle", duration],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if (found := resident.connected()) is not None:
            return found
        if process.poll() is not None:
            note = f"no resident engine could be started (see {resident.log_path()})"
            return None
        time.sleep(ASKED_EVERY_S)
    return None


def _asked(connection: socket.socket, words: Sequence[str]) -> int | None:
    """The exit code by which the engine ends the call; None if it does not do it."""
    global note
    place = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        message = resident.request(
            COMMAND, words=list(words), name=_name(), environment=dict(os.environ)
        )
        resident.send(connection, message, (0, 1, 2, place))
    finally:
        os.close(place)
    connection.settimeout(PATIENCE_S)
    answers = resident.lines(connection)
    first, _, why = next(answers, "").partition(" ")
    if first == resident.REFUSED:
        note = f"the resident engine is not used: {why}" if why else ""
    if first != resident.READY:
        return None
    forward = _Forward(connection)
    connection.settimeout(None)
    resident.send(connection, resident.GO)
    try:
        last, _, code = next(answers, "").partition(" ")
    except OSError:
        last = ""
    if last == resident.CODE:
        return int(code)
    forward.end()
    note = "the resident engine ended during this call, which goes on without it"
    return None


class _Forward:
    """From now on signals go to the engine; a second one ends this process at once."""

    def __init__(self, connection: socket.socket):
        import signal

        from ..execution.stopping import STOPPING

        self._connection = connection
        self._number = 0
        self._before = {}
        for number in (getattr(signal, name) for name in STOPPING):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._number:
            self._number = number
            try:
                resident.send(self._connection, f"{resident.SIGNAL} {number}")
                return
            except OSError:
                pass
        os._exit(128 + number)

    def end(self) -> None:
        """Handle signals as before; ends the process if there was one."""
        import signal

        if self._number:
            os._exit(128 + self._number)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _name() -> str:
    """How the program was called, as in its messages about usage."""
    package = getattr(sys.modules["__main__"], "__package__", None)
    return f"python -m {package}" if package else os.path.basename(sys.argv[0])

"""A call of another process: what it asked for, whether this process can do it, and this process
with its streams, folder, environment and umask meanwhile.

What the caller is allowed is read from the kernel, not from its message: a call from a container,
with other limits, other cores or another user is refused, because its results or its costs would
differ.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.inputs import parse_json
from ...core.machine import limits_of
from ...execution import resident

NAMESPACES = ("mnt", "net", "pid", "user", "uts")
LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_CPU")
STATUS = ("Uid", "Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp")  # lines of /proc/PID/status
DESCRIPTORS = 4  # input, output, errors, and the folder


@dataclass(eq=False)
class Call:
    """One call of a process.

    Args:
        connection: to it.
        process: its number.
        do: what is asked for: "predict", "status" or "stop".
        program: see ``resident.program``.
        words: the command line, without the program.
        name: of the program, for its messages.
        environment: all variables.
        descriptors: see ``DESCRIPTORS``; () if nothing is to be run.
    """

    connection: socket.socket
    process: int
    do: str
    program: Mapping[str, str]
    words: Sequence[str] = ()
    name: str = ""
    environment: Mapping[str, str] | None = None
    descriptors: Sequence[int] = ()

    @classmethod
    def received(cls, connection: socket.socket) -> Call:
        """The call that a process makes by its first message.

        Raises:
            ValueError: it is of another user, or of another form.
            OSError: it does not come in time.
        """
        connection.settimeout(resident.ANSWER_S)
        process, user, _ = resident.peer_of(connection)
        if user != os.getuid() or not process:
            raise ValueError("another user, or another container")
        first, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, DESCRIPTORS)
        try:
            data = parse_json(next(resident.lines(connection, first), ""))
            texts = [*data.get("words", ()), data.get("name", ""), data["do"]]
            for mapping in (data["program"], data.get("environment", {})):
                texts += [*mapping, *mapping.values()]
            if not all(isinstance(one, str) and "\0" not in one for one in texts):
                raise ValueError("not text")
            if data["do"] == "predict" and len(descriptors) != DESCRIPTORS:
                raise ValueError("without its streams")
            return cls(connection, process, **data, descriptors=descriptors)
        except (LookupError, TypeError, AttributeError, ValueError, OSError) as error:
            for one in descriptors:
                os.close(one)
            raise ValueError(f"not a message of this program ({error})") from error

    def answer(self, *words: object) -> bool:
        """Send a line; False if the process has ended."""
        try:
            resident.send(self.connection, " ".join(map(str, words)))
        except (OSError, UnicodeEncodeError):
            return False
        return True

    def begins(self) -> bool:
        """Whether the process still waits for its turn, which has come now."""
        try:
            return self.answer(resident.READY) and (
                next(resident.lines(self.connection), "") == resident.GO
            )
        except (OSError, ValueError):
            return False

    def signals(self) -> Iterator[int]:
        """The signals that the process sends on; 0 when it has ended."""
        try:
            self.connection.settimeout(None)  # closed already, if the call was short
            for line in resident.lines(self.connection):
                word, _, number = line.partition(" ")
                if word == resident.SIGNAL and number.isdigit():
                    yield int(number)
        except (OSError, ValueError):
            pass
        yield 0

    def close(self) -> None:
        """End the connection."""
        for one in self.descriptors:
            os.close(one)
        self.descriptors = ()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def circumstances(process: int) -> dict[str, Any]:
    """What a process sees and is allowed, by the kernel.

    Raises:
        OSError: it has ended, or may not be asked.
    """
    import resource  # not on every system

    proc = Path("/proc") / str(process)
    own = dict(
        line.split(":", 1)
        for line in (proc / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    )
    return {
        "user or its rights": [own.get(name) for name in STATUS],
        "container": [os.readlink(proc / "ns" / name) for name in NAMESPACES]
        + [os.readlink(proc / "root")],
        "cores": sorted(os.sched_getaffinity(process)),
        "priority": os.getpriority(os.PRIO_PROCESS, process),
        "limits": [
            *(resource.prlimit(process, getattr(resource, name)) for name in LIMITS),
            limits_of(process),
        ],
    }


def umask_of(process: int) -> int:
    """The umask of a process.

    Raises:
        OSError, StopIteration: it has ended.
    """
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
    return int(next(line for line in text.splitlines() if line.startswith("Umask:"))[6:], 8)


@dataclass(frozen=True)
class Program:
    """The program as it is when the engine starts.

    Args:
        parts: see ``resident.program``.
        circumstances: see above.
        variables: see ``resident.at_start``.
        folders: folder of modules -> its time of change.
        started: the time, in seconds.
    """

    parts: Mapping[str, str]
    circumstances: Mapping[str, Any]
    variables: Mapping[str, str]
    folders: Mapping[str, int]
    started: float

    @classmethod
    def running(cls) -> Program:
        """Of this process."""
        variables = resident.at_start(os.environ)
        own = circumstances(os.getpid())
        return cls(resident.program(), own, variables, _folders(), time.time())

    def is_unchanged(self) -> bool:
        """Whether a new process would run the same: no package was installed, and no module that is
        loaded was edited.
        """
        files = (
            getattr(module, "__file__", None)
            for name, module in tuple(sys.modules.items())
            if name.partition(".")[0] == __name__.partition(".")[0]
        )
        try:
            newest = max(os.stat(file).st_mtime for file in files if file)
        except OSError:
            return False
        return newest < self.started and _folders() == self.folders

    def refusal(self, call: Call) -> str:
        """Why this process cannot do the work of a call; "" if it can."""
        try:
            found = circumstances(call.process)
        except (OSError, ValueError):
            return "its process cannot be compared with this one"
        asked = resident.at_start(call.environment or {})
        for own, other in (
            (self.parts, call.program),
            (self.circumstances, found),
            (self.variables, asked),
        ):
            names = sorted({*own, *other})
            if unequal := [name for name in names if own.get(name) != other.get(name)]:
                return f"it has not the same {', '.join(unequal)}"
        return ""


def _folders() -> dict[str, int]:
    """The folders of installed packages, which change with every installation."""
    found = {}
    for place in sys.path:
        if os.path.basename(place) not in ("site-packages", "dist-packages"):
            continue
        with contextlib.suppress(OSError):
            found[place] = os.stat(place).st_mtime_ns
    return found


@contextlib.contextmanager
def in_place_of(call: Call) -> Iterator[None]:
    """Inside the block this process has the streams, folder, environment and umask of a call."""
    own = [os.dup(number) for number in range(3)]
    environment, streams = dict(os.environ), (sys.stdin, sys.stdout, sys.stderr)
    for stream in streams[1:]:
        stream.flush()
    mask = os.umask(umask_of(call.process))
    try:
        with warnings.catch_warnings():  # which also forgets the warnings of earlier calls
            os.fchdir(call.descriptors[3])
            _use(call.descriptors[:3])
            _use_environment(call.environment or {})
            _open_streams(streams)
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        _use(own)
        for number in own:
            os.close(number)
        _set(streams)
        _use_environment(environment)
        os.umask(mask)
        os.chdir("/")


def silence() -> None:
    """Print nothing more of the call at work, whose process has ended."""
    null = os.open(os.devnull, os.O_RDWR)
    _use([null] * 3)
    os.close(null)


def _use(descriptors: Sequence[int]) -> None:
    for number, one in enumerate(descriptors):
        os.dup2(one, number)


def _use_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    tempfile.tempdir = None  # which depends on the environment, and is kept


def _open_streams(like: Sequence[Any]) -> None:
    """New text streams, as Python opens them at its start."""
    reading = io.BufferedReader(io.FileIO(0, "r", closefd=False))
    writing = [
        io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
            stream.encoding,
            stream.errors,
            line_buffering=number == 2 or os.isatty(number),
        )
        for number, stream in ((1, like[1]), (2, like[2]))
    ]
    _set([io.TextIOWrapper(reading, like[0].encoding, like[0].errors), *writing])


def _set(streams: Sequence[Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        setattr(sys, f"__{name}__", stream)

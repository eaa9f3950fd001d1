"""The resident engine as its callers see it: where its socket is, who may speak there, and in what.

A Unix socket in a folder that only this user can enter. A caller sends one line of JSON (``do``,
and what belongs to it), with its standard streams and its folder as descriptors. The engine answers
in lines of text: ``READY``, after which the caller sends ``GO``; ``CODE n`` at the end; or
``REFUSED why``. Meanwhile the caller may send ``SIGNAL n``. Nothing sent is code, and no pickle.

Every call of the command line loads this module, so it imports nothing that takes time. It knows no
command and no model.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # type checkers read it as true; to import ``typing`` needs 20 ms
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

READY, GO, CODE, SIGNAL, REFUSED = "ready", "go", "code", "signal", "refused"
MOST_BYTES = 1 << 23  # of one message
MOST_PATH_BYTES = 107  # of a socket's name
ANSWER_S = 2.0  # for a message of a caller, once it has connected
# Variables that libraries read once, when they are loaded.
AT_START = (
    *("ATEN_", "BLIS_", "CUBLAS_", "CUDA_", "CUDNN_", "DNNL_", "GLIBC_", "GOMP_", "GOTO_", "HIP_"),
    *("KMP_", "LD_", "LIBXSMM_", "MALLOC_", "MKL_", "NUMBA_", "NVIDIA_", "OMP_", "ONEDNN_"),
    *("OPENBLAS_", "OPENVINO_", "OV_", "PYTHON", "PYTORCH_", "ROCR_", "TBB_", "TORCH"),
)


def is_supported() -> bool:
    """Whether this system has what the engine needs: Linux states who connects to a socket."""
    return sys.platform == "linux"


def folder() -> str:
    """The folder of the socket; it need not exist."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return os.path.join(runtime, "delineate")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")
    return os.path.join(base, "delineate", "engine")


def socket_path() -> str:
    """The socket's name. It has that of the machine, because machines may share the folder."""
    return os.path.join(folder(), f"{os.uname().nodename[:32]}.sock")


def log_path() -> str:
    """What an engine that was started in the background prints."""
    return socket_path().removesuffix(".sock") + ".log"


def is_private(path: str) -> bool:
    """Whether a folder is this user's, and nobody else can enter it; False if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    is_folder = found.st_mode & 0o170000 == 0o040000
    return is_folder and found.st_uid == os.getuid() and not found.st_mode & 0o077


def is_there() -> bool:
    """Whether there is a socket to which a caller may connect; an engine need not live."""
    return is_private(folder()) and os.path.exists(socket_path())


def connected() -> tuple[socket.socket, int] | None:
    """A connection to the engine, and the engine's process; None if there is none of this user."""
    import socket

    if not is_there():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_S)
        connection.connect(socket_path())
        pid, user, _ = peer_of(connection)
    except OSError:
        connection.close()
        return None
    if user != os.getuid():
        connection.close()
        return None
    return connection, pid


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of the other side; the process is 0 if it is in another container."""
    import socket
    import struct

    size = struct.calcsize("3i")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, user, group = struct.unpack("3i", found)
    return pid, user, group


def send(connection: socket.socket, message: str, descriptors: Sequence[int] = ()) -> None:
    """Send a line, with descriptors at its first byte."""
    import socket

    raw = f"{message}\n".encode("ascii")
    sent = socket.send_fds(connection, [raw], list(descriptors)) if descriptors else 0
    if sent < len(raw):  # nothing is not sent: the other side may have answered, and ended
        connection.sendall(raw[sent:])


def lines(connection: socket.socket, begun: bytes = b"") -> Iterator[str]:
    """The lines that arrive, until the other side ends; ``begun`` has arrived already.

    Raises:
        ValueError: a line is longer than ``MOST_BYTES``, or not ASCII.
    """
    buffer = bytearray(begun)
    while True:
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end]).decode("ascii")
            del buffer[: end + 1]
            yield line
        if len(buffer) > MOST_BYTES:
            raise ValueError("a line is too long")
        received = connection.recv(1 << 16)
        if not received:
            return
        buffer += received


def program() -> dict[str, str]:
    """What the programs of engine and caller must have in common."""
    from .. import __version__

    flags = sys.flags
    streams = [getattr(one, "encoding", "") for one in (sys.stdin, sys.stdout, sys.stderr)]
    return {
        "version": __version__,
        "installation": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        "Python": f"{sys.prefix} {sys.version}",
        "flags of Python": str(
            (flags.optimize, flags.dev_mode, flags.isolated, sys.warnoptions, [*sys._xoptions])
        ),
        "encoding of text": str((sys.getfilesystemencoding(), *streams)),
    }


def at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that must be equal, because libraries read them when they are loaded."""
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


def request(do: str, **more: Any) -> str:
    """The first message of a caller."""
    import json

    return json.dumps({"do": do, "program": program(), **more})

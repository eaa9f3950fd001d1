"""Compiled graphs on disk, next to their model: only those that this user compiled are used.

OpenVINO loads a compiled graph without checks, so one that came with a model must never be used.
Each file begins with an HMAC-SHA256 of its name and content, with a key that only this user can
read and that is not in the model's folder. A file that does not fit, because another user wrote it
or because it is damaged, is ignored and replaced. Its name begins with the id of its model.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import mmap
import os
import secrets
from pathlib import Path

from ..core import atomic
from ..core.errors import OutputError
from ..core.outputs import state_folder

_KEY_BYTES = 32
_DIGEST = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


def read(file: Path) -> memoryview | None:
    """The graph in ``file``; None if there is none that this user wrote, or if it is damaged. Its
    bytes are those of the file itself, if nobody else can change that, and not in memory twice.
    """
    try:
        content = _content(file)
    except (OSError, ValueError):  # absent, or empty
        return None
    key, data = _key(), content[_DIGEST:]
    if key is None or not hmac.compare_digest(_seal(key, file, data), content[:_DIGEST]):
        log.debug("%s was not written by this user, or is damaged; it is not used", file)
        return None
    return data


def _content(file: Path) -> memoryview:
    with file.open("rb") as opened:
        if os.name == "nt" or _is_ours(os.fstat(opened.fileno()), 0o022):
            # A private copy, because OpenVINO takes memory that may be written to.
            return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY))
        return memoryview(bytearray(opened.read()))


def write(file: Path, data: bytes) -> None:
    """Keep a graph, and delete those of other models in the folder; does nothing where files or
    the key cannot be written.
    """
    key = _key()
    if key is None:
        return
    try:
        atomic.remove_temporaries(atomic.make_folder(file.parent))
        atomic.write_bytes(file, _seal(key, file, data), data)
    except OutputError as error:
        log.debug("%s; nothing is cached", error)
        return
    model = file.name.split("-")[0]
    for other in file.parent.glob("*.graph"):
        if other.name.split("-")[0] != model:
            other.unlink(missing_ok=True)


def _seal(key: bytes, file: Path, data: bytes | memoryview) -> bytes:
    seal = hmac.new(key, file.name.encode() + b"\0", "sha256")
    seal.update(data)
    return seal.digest()


def _key() -> bytes | None:
    """This user's key, which is made if there is none; None if it cannot be kept."""
    path = state_folder() / "graph.key"
    try:
        # A key that others can read, or that was cut off, is replaced.
        if path.is_file() and _is_private(path) and len(found := path.read_bytes()) == _KEY_BYTES:
            return found
        atomic.write_bytes(path, made := secrets.token_bytes(_KEY_BYTES), private=True)
        return made
    except (OSError, OutputError) as error:
        log.debug("no key for compiled graphs: %s", error)
        return None


def _is_private(path: Path) -> bool:
    """Whether the file belongs to this user and nobody else can read it; Windows separates the
    folders of users.
    """
    return os.name == "nt" or _is_ours(path.stat(), 0o077)


def _is_ours(found: os.stat_result, denied: int) -> bool:
    """Whether a file belongs to this user, and others have none of the rights ``denied``."""
    return found.st_uid == os.getuid() and not found.st_mode & denied

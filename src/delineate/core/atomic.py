"""Atomic file writing: a half-written file never appears under its final name.

Each file is written under a temporary name in the same folder and then renamed (atomic on POSIX
and Windows). A full disk or a missing permission raises an ``OutputError`` that names the file, and
the old file is unchanged. This module knows nothing of file contents.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError
from .outputs import refuse_originals

log = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success, rename it to ``path``.

    The temporary name keeps the whole ending (".nii.gz"), because libraries choose their format by
    it. On any error the temporary file is removed and an existing file at ``path`` is unchanged.

    Raises:
        OutputError: the disk is full; the folder is missing or cannot be written; or a running
            command reads the file at ``path``.
    """
    target = Path(path)
    refuse_originals(target)
    temporary = target.with_name(f".{secrets.token_hex(4)}.tmp.{target.name}")
    try:
        with _as_output_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, target)
        log.debug("wrote %s", target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` in one step."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: str | Path) -> Path:
    """Create the folder ``path`` if it is missing, and return it.

    Raises:
        OutputError: the folder cannot be created, or a file has this name.
    """
    with _as_output_error(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@contextlib.contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    """Turn an ``OSError`` from the block into an ``OutputError`` that states the reason."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                "the disk is full; any existing file is unchanged", path=target
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError("no permission to write here", path=target) from error
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise OutputError(
                "a file exists where a folder is needed, or a folder where a file is needed",
                path=target,
            ) from error
        raise OutputError(f"cannot be written ({error.strerror or error})", path=target) from error

"""Writing files so that nothing half-written ever stands under its final name.

Everything is written to a temporary name in the same folder, then renamed (atomic on POSIX and
Windows). A full disk or a missing permission becomes an ``OutputError`` that names the file, and
the old file stays as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError
from .outputs import refuse_originals


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` with the same ending; on success it is renamed to
    ``path``.

    The ending is kept whole (".nii.gz"), because libraries choose their format by it. On any error
    the temporary file is removed and what stood under ``path`` before is untouched.

    Raises:
        OutputError: the disk is full, the folder is missing or cannot be written; or a running
            command reads what stands there.
    """
    target = Path(path)
    refuse_originals(target)
    temporary = target.with_name(f".{secrets.token_hex(4)}.tmp.{target.name}")
    try:
        with _told_as_output_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` under ``path`` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) under ``path`` in one step."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: str | Path) -> Path:
    """The folder ``path``, made where it was missing.

    Raises:
        OutputError: it cannot be made, or a file stands there.
    """
    with _told_as_output_error(Path(path)):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


@contextlib.contextmanager
def _told_as_output_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                "the disk is full; what stood here before is unchanged", path=target
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError("no permission to write here", path=target) from error
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            raise OutputError(
                "a file stands where a folder is needed, or the other way round", path=target
            ) from error
        raise OutputError(f"cannot be written ({error.strerror or error})", path=target) from error

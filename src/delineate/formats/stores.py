"""Stores of objects by URL (``s3://``, ``gs://``, ``az://``, ``https://`` ...), by fsspec.

An object is fetched as a whole to a file, and a file is put as one object, so that no reader sees a
part of it. What was read is compared with the length and the tag (ETag) that the store states, and
read again if they differ, as after errors of the network and of the server. Credentials are those
of the environment, as each package of fsspec finds them. They, and what follows a "?" in a URL (a
signature), are in no message (``shown``). ``file://`` and paths are files of this machine, which
other modules read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from ..core import atomic
from ..core.errors import DelineateError, InputError, OutputError, UsageError
from ..extras import require_extra
from .web import ATTEMPTS, CHUNK_BYTES, TIMEOUT_S

Result = TypeVar("Result")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
MOST_BYTES = 1 << 34  # of one object
WAIT_S = 0.5  # before the second attempt; doubled before each further one
# Protocol -> the package that fsspec needs for it.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
PACKAGES |= {"abfs": "adlfs", "abfss": "adlfs", "http": "aiohttp", "https": "aiohttp"}
MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class State:
    """What a store states of an object: its bytes (None if it does not), and a tag that changes
    with its content, or "".
    """

    nbytes: int | None
    tag: str = ""


def is_url(place: str | Path) -> bool:
    """Whether it names an object of a store, and no file of this machine.

    >>> is_url("s3://scans/a.nii.gz"), is_url("scans/a.nii.gz"), is_url("file:///scans/a.nii.gz")
    (True, False, False)
    """
    found = URL.match(str(place))
    return found is not None and found[0].lower() != "file://"


def local(place: str | Path) -> str:
    """The path of a file of this machine; other places as they are.

    >>> local("file:///scans/a%20b.nii.gz"), local("s3://scans/a.nii.gz")
    ('/scans/a b.nii.gz', 's3://scans/a.nii.gz')
    """
    text = str(place)
    return unquote(urlsplit(text).path) if text.lower().startswith("file://") else text


def shown(url: str) -> str:
    """A URL without credentials and signatures.

    >>> shown("https://me:secret@host/a.nii.gz?signature=1f")
    'https://host/a.nii.gz'
    """
    head, mark, rest = url.partition("://")
    plain = rest.partition("?")[0]
    place, slash, path = plain.partition("/")
    return f"{head}{mark}{place.rpartition('@')[2]}{slash}{path}"


def joined(folder: str, name: str) -> str:
    """The place of ``name`` below a folder or URL; a place that is complete stays."""
    if is_url(name) or os.path.isabs(name) or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def require(url: str) -> None:
    """Check that the packages for a URL are installed.

    Raises:
        UsageError: one is missing, or the protocol is unknown.
    """
    _system(url)


def state_of(url: str) -> State:
    """The state of an object.

    Raises:
        InputError: there is none, or the store cannot be asked.
    """
    system, path = _system(url)
    return _tried(url, lambda: _state(system, path), InputError)


def fetch(url: str, target: Path, most_bytes: int = MOST_BYTES) -> State:
    """Copy an object to the file ``target``, whose folder exists; gives its state.

    Raises:
        InputError: there is none; it is larger than ``most_bytes``; or after ``ATTEMPTS`` attempts
            it could not be read, or not all of it.
    """
    system, path = _system(url)

    def copied() -> State:
        before = _state(system, path)
        _refuse_large(before.nbytes, most_bytes, url)
        if before.nbytes is None:
            _copy(system, path, target, most_bytes, url)
        else:
            system.get_file(path, str(target))
        count = target.stat().st_size
        if before.nbytes not in (None, count):
            raise OSError(f"only {count} of {before.nbytes} bytes arrived")
        if before.tag and (after := _state(system, path)) != before:
            raise OSError(f"it changed while it was read ({before.tag} became {after.tag})")
        return before

    try:
        return _tried(url, copied, InputError)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def put(source: Path, url: str) -> None:
    """Copy a file to an object, which is complete or not there.

    Raises:
        OutputError: after ``ATTEMPTS`` attempts it could not be written.
    """
    system, path = _system(url)
    nbytes = source.stat().st_size

    def copied() -> None:
        system.put_file(str(source), path)
        if (found := _state(system, path).nbytes) not in (None, nbytes):
            raise OSError(f"{found} of {nbytes} bytes were stored")

    _tried(url, copied, OutputError)


def remove(url: str) -> None:
    """Remove an object if there is one.

    Raises:
        OutputError: it cannot be removed.
    """
    system, path = _system(url)

    def removed() -> None:
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(path)

    _tried(url, removed, OutputError)


def found(pattern: str) -> list[str]:
    """The URLs of the objects that match a pattern with "*", sorted.

    Raises:
        InputError: the store cannot be asked.
    """
    system, path = _system(pattern)
    names = _tried(pattern, lambda: system.glob(path), InputError)
    return sorted(system.unstrip_protocol(name) for name in names)


def below(url: str) -> list[str]:
    """The URLs of all objects below a "folder", sorted; [] if it is an object itself.

    Raises:
        InputError: the store cannot be asked.
    """
    system, path = _system(url)
    names = _tried(url, lambda: system.find(path), InputError)
    return sorted(system.unstrip_protocol(name) for name in names if name.strip("/") != path)


def exists(url: str) -> bool:
    """Whether there is an object.

    Raises:
        InputError: the store cannot be asked.
    """
    system, path = _system(url)

    def is_there() -> bool:  # "isfile" of fsspec is false after any error
        try:
            _state(system, path)
        except FileNotFoundError as error:
            if _hidden(error) is not None:
                raise
            return False
        return True

    return _tried(url, is_there, InputError)


@contextlib.contextmanager
def opened(place: str | Path) -> Iterator[BinaryIO]:
    """A file, or a temporary copy of an object, which hours of work may read line by line.

    Raises:
        InputError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        path = Path(place)
        if is_url(place):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="delineate-"))
            path = Path(folder, "object")
            fetch(str(place), path)
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", path=place) from error
        yield file


def _copy(system: Any, path: str, target: Path, most: int, url: str) -> None:
    """Copy an object whose length is not known."""

    def parts() -> Iterator[bytes]:
        count = 0
        with system.open(path, "rb") as source:
            while part := source.read(CHUNK_BYTES):
                count += len(part)
                _refuse_large(count, most, url)
                yield part

    atomic.write_parts(target, parts())


def _refuse_large(nbytes: int | None, most: int, url: str) -> None:
    if nbytes is not None and nbytes > most:
        raise InputError(
            f"has more than {most / 2**20:.4g} MiB, which are fetched at most", path=shown(url)
        )


def _state(system: Any, path: str) -> State:
    facts = system.info(path)
    if facts.get("type") == "directory":
        raise FileNotFoundError(path)
    tags = (facts.get(key) for key in ("ETag", "etag", "md5Hash", "content_md5", "created"))
    tag = next((str(one).strip('"') for one in tags if one), "")
    size = facts.get("size")
    return State(None if size is None else int(size), tag)


@cache
def _systems(protocol: str, host: str) -> Any:
    require_extra("cluster", f"{protocol}://", only=("fsspec",))
    import fsspec

    slow: dict[str, Any] = {}
    connect_s, read_s = TIMEOUT_S
    if protocol in ("s3", "s3a"):
        slow["config_kwargs"] = {"connect_timeout": connect_s, "read_timeout": read_s}
        slow["config_kwargs"]["retries"] = {"max_attempts": 1}  # they are ours
    if protocol in ("http", "https"):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=read_s)
        slow["client_kwargs"] = {"timeout": limits}
    known = {} if protocol == "memory" else {"use_listings_cache": False}
    return fsspec.filesystem(protocol, **known, **slow)


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    protocol = url.partition("://")[0].lower()
    place = urlsplit(url)
    try:
        system = _systems(protocol, place.netloc if protocol.startswith("http") else "")
        return system, system._strip_protocol(url)
    except ImportError as error:
        package = PACKAGES.get(protocol, error.name or protocol)
        raise UsageError(
            f"{protocol}:// needs the package {package}, which is not installed; install with: "
            f"pip install {package}"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{protocol}:// is no kind of place that can be read; known are file, "
            f"{', '.join(PACKAGES)}"
        ) from error


def _tried(url: str, act: Callable[[], Result], kind: type[DelineateError]) -> Result:
    """The result of ``act``, after some attempts with longer and longer waits between them."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return act()
        except DelineateError:
            raise
        except (PermissionError, NotImplementedError) as error:
            raise kind("no permission for this by the store", path=shown(url)) from error
        except Exception as error:
            cause: Exception = error
            if isinstance(error, FileNotFoundError):
                if (hidden := _hidden(error)) is None:
                    raise kind("does not exist", path=shown(url)) from error
                cause = hidden
            if attempt == ATTEMPTS or _is_final(cause):
                raise kind(
                    f"failed {attempt} time{'s' * (attempt != 1)}: {_reason(cause)}",
                    path=shown(url),
                ) from error
            time.sleep(WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1))
    raise AssertionError("not reached")


def _hidden(error: FileNotFoundError) -> Exception | None:
    """The error of the server or network that fsspec reports as an object that does not exist, as
    it does for every error of HTTP; None if there is none.
    """
    cause = error.__cause__
    if isinstance(cause, FileNotFoundError) or _code(cause) in (404, 410):
        return None
    of_network = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if of_network and isinstance(cause, Exception) else None


def _code(error: BaseException | None) -> int | None:
    """The state of HTTP that a server has answered with; None without an answer, as after one that
    is no HTTP, for which aiohttp makes up a state and has no headers.
    """
    code = getattr(error, "status", None)
    return code if isinstance(code, int) and getattr(error, "headers", ...) is not None else None


def _is_final(error: Exception) -> bool:
    """Whether the server refuses for good, by a state of 4xx that does not ask for patience, or the
    disk here is full.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    code = _code(error)
    return code is not None and 400 <= code < 500 and code not in (408, 425, 429)


def _reason(error: Exception) -> str:
    """Why, without addresses, which may have a signature."""
    if code := _code(error):
        return f"HTTP state {code}"
    if getattr(error, "status", None) is not None:  # its words have bytes of the answer
        return f"no answer of HTTP that can be used ({type(error).__name__})"
    words = re.sub(r"\S*(://|[Ss]ignature|[Tt]oken)\S*", "", str(error)).strip()
    return " ".join(words.split())[:200] or type(error).__name__

"""Opening files: only regular ones, of a size that fits; and reading JSON and YAML, which no other
module parses.

JSON that this program writes for itself carries a checksum (``json_text``), which every reader
verifies: a bit that changed on the disk is never read as other data.

A named pipe, a socket or a device would block a reader or never end. Voxels that would need more
than a share of the memory, and compressed data that would grow out of all proportion, are refused
before they cost memory (``refuse_large``). A document with more than ``MOST_BYTES``, or nested
deeper than the parser allows, is refused too; so is a key that stands twice in one object: parsers
keep the last value, so that a meaning would be lost in silence. This module knows nothing of what
the data mean; schemas are in ``schema``, and the callers check the content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DelineateError, InputError
from .machine import memory_bytes
from .progress import Say, unsaid

MOST_BYTES = 1 << 28  # of a JSON file; the record of 100,000 predictions has about a quarter
LARGE_BYTES = 1 << 24  # of a JSON file, above which the memory that it needs is estimated
MOST_LINE_BYTES = 1 << 20  # of a line of a file that is read line by line
MOST_YAML_BYTES = 1 << 22  # YAML is written by hand, and parsed slowly
MOST_ALIASES = 100  # in a YAML file; each repeats a part of it, and parts can repeat parts
MOST_DEPTH = 100  # of lists and mappings in a YAML file
MEMORY_SHARE = 0.25  # of the machine's memory, for the voxels of one file
# Compressed voxels that are all equal reach a ratio of 1000. Such masks exist, but are small.
MOST_RATIO, ANY_RATIO_BYTES = 500, 1 << 29
_MOST_READ: list[int] = []  # limits that callers have set, in bytes
CHECKSUM = "delineate_checksum"  # key of an object's checksum, of all its other entries
_APART = 2  # levels of mappings whose entries are hashed one by one
_CHECKSUM_FORM = re.compile(r"crc32:[0-9a-f]{8}")

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_kind(path: str | Path) -> str:
    """The kind of a special file ("a named pipe", "a socket", "a device"); "" for a regular file, a
    folder or a path that does not exist.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    return next((words for test, words in _KINDS if test(mode)), "")


def refuse_special(path: str | Path) -> None:
    """Refuse a special file before it is opened.

    Raises:
        InputError: ``path`` is a named pipe, a socket or a device.
    """
    if kind := special_kind(path):
        raise InputError(f"is {kind}; only regular files are opened", path=path)


@contextlib.contextmanager
def reading_at_most(nbytes: int | None) -> Iterator[None]:
    """Inside the block, the voxels of one file may take ``nbytes`` instead of a share of the
    machine's memory; None changes nothing.
    """
    if nbytes is None:
        yield
        return
    _MOST_READ.append(nbytes)
    try:
        yield
    finally:
        _MOST_READ.remove(nbytes)


def stated_limit() -> int | None:
    """The limit of the innermost ``reading_at_most``, in bytes; None outside."""
    return _MOST_READ[-1] if _MOST_READ else None


def expected_bytes(file_bytes: int) -> int:
    """About the most that files of this size grow when they are read: for limits of memory and
    time that an ordinary file must not meet.
    """
    most = min(MOST_RATIO * file_bytes, ANY_RATIO_BYTES)
    return stated_limit() or max(4 * file_bytes, most)


def refuse_large(
    nbytes: int, file_bytes: int | None = None, words: str = "the header states {} of data"
) -> None:
    """Refuse data that would need too much memory, before they are read.

    Args:
        nbytes: of the data in memory, as a header states them.
        file_bytes: of the compressed file; None if the data are not compressed.
        words: how much that is, for the message; ``{}`` becomes the amount.

    Raises:
        InputError: above the limit of ``reading_at_most`` (else ``MEMORY_SHARE`` of the machine),
            or more than ``MOST_RATIO`` times the file and above ``ANY_RATIO_BYTES``.
    """
    most = stated_limit() or int(MEMORY_SHARE * memory_bytes())
    if nbytes > most:
        share = "by --ram" if _MOST_READ else f"({MEMORY_SHARE:.0%} of this machine's memory)"
        raise InputError(
            f"{words.format(f'{nbytes / 2**30:.3g} GiB')}; {most / 2**30:.3g} GiB are "
            f"allowed {share}"
        )
    if file_bytes and not _MOST_READ and nbytes > max(ANY_RATIO_BYTES, MOST_RATIO * file_bytes):
        raise InputError(
            f"a compressed file of {file_bytes / 1e6:.3g} MB would unpack to "
            f"{nbytes / 2**30:.3g} GiB, {nbytes // file_bytes} times its size; above "
            f"{ANY_RATIO_BYTES / 2**30:g} GiB, {MOST_RATIO} times are allowed; "
            "if the file is right, unpack it first"
        )


def limit_memory(nbytes: int) -> None:
    """Limit the address space of this process to what it has now and ``nbytes``, if the system
    allows it.
    """
    import psutil

    _limit("RLIMIT_AS", psutil.Process().memory_info().vms + nbytes)


def limit_allocation(nbytes: int) -> None:
    """Limit what this process has for itself, in all, to ``nbytes``, if the system allows it. What
    it maps and shares (libraries, files, stores of objects) is not counted.
    """
    _limit("RLIMIT_DATA", nbytes)


def _limit(what: str, nbytes: int) -> None:
    """Set a limit of this process by its name in ``resource``, if the system has it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        kind = getattr(resource, what)
        # A limit above the hard one would be refused, so the smaller of the two is set.
        hard = resource.getrlimit(kind)[1]
        allowed = nbytes if hard == resource.RLIM_INFINITY else min(nbytes, hard)
        resource.setrlimit(kind, (allowed, hard))


class ChecksumError(ValueError):
    """Data do not fit their checksum."""

    def __init__(self) -> None:
        super().__init__(
            "has been changed or damaged since it was written: its checksum does not match; "
            f'restore it, or remove its "{CHECKSUM}" if you changed it'
        )


def parse_json(text: str | bytes, checked: bool = True) -> Any:
    """The data in a JSON text, whose checksum is verified and removed if it has one.

    Args:
        text: JSON.
        checked: False accepts a text that was edited since its checksum was written.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a key twice.
        ChecksumError: an object does not fit its checksum.

    >>> parse_json('{"liver": 1}')
    {'liver': 1}
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        found = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(found, dict) and not _fits(found) and checked:
        raise ChecksumError
    return found


def json_text(data: Mapping[str, Any], indent: int | None = None) -> str:
    """The JSON text of plain data with their checksum.

    >>> parse_json(json_text({"liver": 1}))
    {'liver': 1}
    >>> parse_json(json_text({"liver": 1}).replace("1", "3", 1))
    Traceback (most recent call last):
    ...
    delineate.core.inputs.ChecksumError: has been changed or damaged since it was written...
    """
    return json.dumps({**data, CHECKSUM: _checksum(data, as_read)}, indent=indent)


_LINE_END = re.compile(rb', "delineate_checksum": "crc32:([0-9a-f]{8})"\}$')


def json_line(data: Mapping[str, Any]) -> str:
    """As ``json_text``, with sorted keys and the checksum at the end, so that ``is_intact``
    verifies the line without parsing it.

    >>> json_line({"spleen": 2, "liver": 1})
    '{"liver": 1, "spleen": 2, "delineate_checksum": "crc32:afd54dd8"}'
    >>> parse_json(json_line({"liver": 1})), is_intact(json_line({"liver": 1}).encode())
    ({'liver': 1}, True)
    """
    text = json.dumps(data, sort_keys=True)
    return f'{text[:-1]}, "{CHECKSUM}": "crc32:{zlib.crc32(text.encode()):08x}"}}'


def is_intact(line: bytes) -> bool:
    """Whether a line is as ``json_line`` wrote it; of others, also valid ones, False."""
    end = _LINE_END.search(line, max(0, len(line) - 60))
    if end is None:
        return False
    return zlib.crc32(b"}", zlib.crc32(line[: end.start()])) == int(end[1], 16)


def as_read(data: Any) -> Any:
    """Plain data as they are read again: lists for tuples, and texts for all keys."""
    return json.loads(json.dumps(data))


def _checksum(data: Mapping[str, Any], plain: Callable[[Any], Any] = lambda part: part) -> str:
    """The CRC-32 of the data; layout and order of keys do not count."""
    checksum = 0
    for part in _canonical(data, plain, _APART):
        checksum = zlib.crc32(part.encode(), checksum)
    return f"crc32:{checksum:08x}"


def _canonical(data: Any, plain: Callable[[Any], Any], levels: int) -> Iterator[str]:
    """The JSON text of ``data`` with sorted keys, in parts: each entry of the upper ``levels`` of
    mappings is one, so that a record of many cases needs no second copy.
    """
    if not levels or not isinstance(data, Mapping) or not all(isinstance(k, str) for k in data):
        yield json.dumps(plain(data), sort_keys=True)
        return
    yield "{"
    for number, key in enumerate(sorted(data)):
        yield f"{', ' if number else ''}{json.dumps(key)}: "
        yield from _canonical(data[key], plain, levels - 1)
    yield "}"


def _fits(data: dict[str, Any]) -> bool:
    """Whether data fit their checksum, which is removed; true without one."""
    if (own := data.pop(CHECKSUM, None)) is not None:
        return bool(own == _checksum(data))
    # The key itself may be damaged.
    return not any(isinstance(v, str) and _CHECKSUM_FORM.fullmatch(v) for v in data.values())


def parse_yaml(text: str) -> Any:
    """The data in a YAML text: plain data, never Python objects.

    Raises:
        ValueError: it is not YAML, is nested too deeply, has a key twice, or too many aliases.

    >>> parse_yaml("liver: 1")
    {'liver': 1}
    """
    import yaml

    try:
        aliases = depth = 0
        for event in yaml.parse(text):
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise ValueError("it is nested too deeply")
        if aliases > MOST_ALIASES:
            raise ValueError(f"it has {aliases} aliases, at most {MOST_ALIASES} are read")
        return yaml.load(text, _yaml_loader())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | Path, *, error: type[DelineateError] = InputError) -> Any:
    """The data in a JSON file.

    Raises:
        DelineateError: of the type ``error``: there is no such file, it cannot be read, is larger
            than ``MOST_BYTES``, needs more memory than ``refuse_large`` allows, or ``parse_json``
            refuses it.
    """

    def parsed(text: str) -> Any:
        if len(text) > LARGE_BYTES:
            refuse_large(_json_bytes(text), words="the file needs about {} of memory")
        return parse_json(text)

    return _read(Path(path), parsed, "JSON", MOST_BYTES, error)


def _json_bytes(text: str) -> int:
    """About the memory that the data in a JSON text need: lists, mappings, and what they hold."""
    of_each = {"[": 64, "{": 200, ",": 40, '"': 30}
    return len(text) + sum(nbytes * text.count(mark) for mark, nbytes in of_each.items())


def read_json_if_any(path: str | Path, *, error: type[DelineateError] = InputError) -> Any:
    """As ``read_json``, but None if there is no such file."""
    return read_json(path, error=error) if Path(path).is_file() else None


def read_yaml(path: str | Path) -> Any:
    """The data in a YAML file.

    Raises:
        InputError: there is no such file, it cannot be read, is larger than ``MOST_YAML_BYTES``, or
            ``parse_yaml`` refuses it.
    """
    return _read(Path(path), parse_yaml, "YAML", MOST_YAML_BYTES, InputError)


def read_json_lines(path: str | Path, say: Say = unsaid) -> list[dict[str, Any]]:
    """The objects in a file with one per line, as ``atomic.append_line`` writes it.

    A line that does not fit its checksum, or that a power cut or a kill left incomplete, is left
    out.

    Args:
        path: the file.
        say: receives a sentence about lines that are left out, except an incomplete last one, whose
            writing was never finished.

    Raises:
        InputError: it cannot be read, or most of its lines are no JSON objects.
    """

    def objects(text: str) -> list[dict[str, Any]]:
        *ended, last = text.split("\n")
        read = [_object_in(line) for line in ended if line.strip()]
        found = [one for one in (*read, _object_in(last)) if one is not None]
        if damaged := read.count(None):
            if damaged > max(1, len(found)):
                raise ValueError(f"{damaged} of its lines are no objects")
            say(f"{path}: {damaged} damaged line{' is' if damaged == 1 else 's are'} left out")
        return found

    # A damaged byte costs its line and no other.
    lines: list[dict[str, Any]] = _read(
        Path(path), objects, "JSON lines", MOST_BYTES, InputError, undecodable="replace"
    )
    return lines


def json_lines(path: str | Path, say: Say = unsaid) -> Iterator[dict[str, Any]]:
    """As ``read_json_lines``, one object after the other, for a file of any size.

    Raises:
        InputError: it cannot be read, or most of its lines are no JSON objects.
    """
    refuse_special(path)
    found = damaged = 0
    try:
        with Path(path).open("rb") as file:
            while line := file.readline(MOST_BYTES):
                one = _object_in(line.decode("utf-8-sig", "replace"))
                if one is not None:
                    found += 1
                    yield one
                elif line.strip() and line.endswith(b"\n"):
                    damaged += 1
    except OSError as failure:
        raise InputError(f"cannot be read ({failure.strerror})", path=path) from failure
    if damaged > max(1, found):
        raise InputError(f"is not JSON lines ({damaged} of its lines are no objects)", path=path)
    if damaged:
        say(f"{path}: {damaged} damaged line{' is' if damaged == 1 else 's are'} left out")


def _object_in(line: str) -> dict[str, Any] | None:
    """The object in a line; None if there is none, or if it is damaged."""
    try:
        data = parse_json(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Offset and content of each line of an open file, without its end; None for one with more than
    ``MOST_LINE_BYTES``, of which no more is held. Files of any size are read.

    >>> import io
    >>> list(lines_of(io.BytesIO(b"liver\\nspleen")))
    [(0, b'liver'), (6, b'spleen')]
    """
    offset = 0
    while line := file.readline(MOST_LINE_BYTES + 1):
        start, offset = offset, offset + len(line)
        if line.endswith(b"\n") or len(line) <= MOST_LINE_BYTES:
            yield start, line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MOST_LINE_BYTES)
            offset += len(line)
        yield start, None


def object_in_line(line: bytes | None) -> dict[str, Any]:
    """The object in a line of ``lines_of``.

    Raises:
        ValueError: it is too long or holds something else; in words.
    """
    if line is None:
        raise ValueError(f"it is longer than {MOST_LINE_BYTES / 2**20:g} MiB")
    try:
        data = parse_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if not isinstance(data, dict):
        raise ValueError("it is not an object of names and values")
    return data


def read_text(path: str | Path) -> str:
    """The text (UTF-8) of a table or list.

    Raises:
        InputError: there is no such file, it cannot be read, is larger than ``MOST_BYTES``, or is
            no text.
    """

    def text_of(text: str) -> str:
        if "\0" in text:
            raise ValueError("it has bytes of zero")
        return text

    found: str = _read(Path(path), text_of, "text", MOST_BYTES, InputError)
    return found


@contextlib.contextmanager
def expecting(
    what: str, path: str | Path, error: type[DelineateError] = InputError
) -> Iterator[None]:
    """Turn what Python raises on data of another form into an error of the type ``error``; errors
    of this package get the path if they have none.

    >>> with expecting("a list of cases", "cases.json"):
    ...     {"cases": 3}["cases"]["a"]
    Traceback (most recent call last):
    ...
    delineate.core.errors.InputError: cases.json: is damaged or not a list of cases (TypeError...
    """
    try:
        yield
    except DelineateError as failure:
        failure.path = failure.path or str(path)
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as failure:
        raise error(
            f"is damaged or not {what} ({type(failure).__name__}: {failure})", path=path
        ) from failure


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits; "" if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _read(
    path: Path,
    parse: Callable[[str], Any],
    form: str,
    most_bytes: int,
    error: type[DelineateError],
    undecodable: str = "strict",
) -> Any:
    refuse_special(path)
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise error(
                f"has {size / 1e6:.0f} MB; {form} files are read up to {most_bytes / 1e6:.0f} MB",
                path=path,
            )
        text = path.read_bytes().decode("utf-8-sig", undecodable)
    except OSError as failure:
        raise error(f"cannot be read ({failure.strerror})", path=path) from failure
    except UnicodeDecodeError as failure:
        raise error(f"is not {form} (not UTF-8)", path=path) from failure
    try:
        return parse(text)
    except ChecksumError as failure:
        raise error(str(failure), path=path) from failure
    except DelineateError as failure:
        raise error(failure.message, path=path) from failure
    except ValueError as failure:
        raise error(f"is not {form} ({failure})", path=path) from failure


def _object(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_repeated([key for key, _ in pairs])!r} stands twice")
    return found


# ``json.loads`` makes a new one each time, which takes longer than a line of a journal.
_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _repeated(keys: Sequence[Hashable]) -> Hashable:
    return Counter(keys).most_common(1)[0][0]


def _yaml_loader() -> Any:
    """PyYAML's safe loader, which also refuses a key that stands twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            # Keys that "<<" merges may repeat; they come later.
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {_repeated(keys)!r} stands twice", node.start_mark
                )
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found

    return Loader

"""Kept values: what shards computed of their cases, until one call joins all of them.

A result over all cases (a table of scores, the comparisons of a cohort) cannot be made by a shard.
So a shard keeps the value of each of its cases as one line of ``OUT/NAME.3-of-100.jsonl``, and a
call without shards reads the lines of all, computes what is missing, and makes the result: the same
as without shards. A line states what its value was made of: the case, the settings, and the size
and time of every file that is read for it. Failures are not kept; they are tried again.

The lines differ from those of a ``ledger``, which states files on the disk and is known by numbers:
a value has no file, is needed as a whole, and is gone once it is joined.

Values are plain data, arrays, and dataclasses that the caller names: no other class is made of what
a line says. Arrays keep every bit.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import __version__
from ..core import atomic
from ..core.errors import DelineateError, InputError
from ..core.inputs import expecting, json_lines, json_text
from ..core.manifest import Source
from ..formats.files import files_of
from .claims import CLAIM
from .executor import Work
from .local import Outcome
from .shards import claimed_by, files_of_shards

Item = TypeVar("Item")
Value = TypeVar("Value")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """The values of a command's cases in a folder.

    Args:
        folder: of the results; None keeps nothing.
        name: of the file, such as "counts.jsonl".
        classes: the dataclasses of the values, and of what they hold.
        settings: plain data on which the values depend, in addition to the cases.
        more: the files that are read for an item, in addition to its sources.
    """

    folder: Path | None
    name: str
    classes: tuple[type, ...]
    settings: Any = None
    more: Callable[[Any], Iterable[Path]] = field(default=lambda item: ())

    def run(
        self,
        work: Work,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        *,
        names: Sequence[str],
        **more: Any,
    ) -> list[Outcome[Value]]:
        """Call ``function`` on every item whose value is not kept already; arguments as for
        ``Engine.run``. A shard keeps the values; its items are those of the shard.

        Raises:
            OutputError: the folder is worked on by another call, or cannot be written.
        """
        if self.folder is None or (work.shard.is_whole and not self._is_shared()):
            return work.run(function, items, names=names, **more)
        folder = atomic.make_folder(self.folder)
        with claimed_by(folder, work.shard) as claim:
            keys = {name: self._key(item) for name, item in zip(names, items, strict=True)}
            found = self._read(keys)
            left = [number for number, name in enumerate(names) if name not in found]
            log.info("%d of %d cases are kept from shards", len(found), len(names))
            place = folder / work.shard.named(self.name)

            def keep(outcome: Outcome[Value]) -> None:
                if work.shard.is_whole or outcome.error is not None:
                    return
                claim.confirm()
                line = {"case": outcome.name, "key": keys[outcome.name]}
                atomic.append_line(place, json_text(line | {"value": plain(outcome.value)}))

            done = work.run(
                function,
                [items[n] for n in left],
                names=[names[n] for n in left],
                each=keep,
                **more,
            )
        found |= {outcome.name: outcome for outcome in done}
        return [found[name] for name in names]

    def forget(self, work: Work) -> None:
        """Remove the lines of all shards, once a call without shards has its results."""
        if self.folder is not None and work.shard.is_whole:
            for path in files_of_shards(self.folder, self.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _is_shared(self) -> bool:
        """Whether shards have worked here, or do so now."""
        assert self.folder is not None
        return any(files_of_shards(self.folder, name) for name in (self.name, CLAIM))

    def _read(self, wanted: Mapping[str, str]) -> dict[str, Outcome[Any]]:
        """Case -> outcome, of the lines that were made of what is wanted."""
        assert self.folder is not None
        found = {}
        for path in files_of_shards(self.folder, self.name):
            for line in json_lines(path, log.warning):
                name, key = line.get("case"), line.get("key")
                if isinstance(name, str) and key and key == wanted.get(name):
                    with expecting("values that shards kept", path):
                        value = restored(line["value"], self.classes)
                    found[name] = Outcome(name, value, None, 0.0)
        return found

    def _key(self, item: Any) -> str:
        """What a value is made of, as a hash; "" if that is not known, so that nothing is kept."""
        try:
            paths = {path for source in _sources(item) for path in _files(source)}
            stated = [[str(path), *_state(path)] for path in sorted({*paths, *self.more(item)})]
            content = json.dumps([__version__, self.settings, plain(item), stated], sort_keys=True)
        except (DelineateError, TypeError):
            return ""
        return sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _sources(value: Any) -> Iterator[Source]:
    """The sources anywhere in an item."""
    if isinstance(value, Source):
        yield value
    elif is_dataclass(value):
        for one in fields(value):
            yield from _sources(getattr(value, one.name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _sources(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _sources(part)


def _files(source: Source) -> list[Path]:
    """What is read for a source; without it, the reason why it cannot be read is the result."""
    try:
        found = files_of(source)
    except InputError:
        found = [Path(source.path)]
    return [*found, *([Path(source.like)] if source.like else [])]


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change; a missing file has none."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def plain(value: Any) -> Any:
    """Plain data of a value, from which ``restored`` makes it again.

    Raises:
        TypeError: it holds something else than plain data, arrays and dataclasses.

    >>> restored(plain({(True, 2): (np.float32(0.1), float("nan"))}), ())
    {(True, 2): (np.float32(0.1), nan)}
    """
    if isinstance(value, np.ndarray | np.generic):
        return _packed(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": str(value)}
    if isinstance(value, Path):
        return {"path": str(value)}
    return _plain_parts(value)


def _plain_parts(value: Any) -> Any:
    """Plain data of what holds other values."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: plain(getattr(value, one.name)) for one in fields(value) if one.init}
        return {"of": [type(value).__name__, parts]}
    if isinstance(value, Mapping):
        return {"pairs": [[plain(key), plain(part)] for key, part in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [plain(part) for part in value]}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, frozenset | set):
        return {"set": sorted((plain(part) for part in value), key=json.dumps)}
    raise TypeError(f"a {type(value).__name__} is not kept")


def _packed(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biufU":
        raise TypeError(f"an array of {array.dtype} is not kept")
    # The order in memory is kept too: sums may depend on it.
    order: Any = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    packed = base64.b64encode(zlib.compress(array.tobytes(order), 1)).decode()
    kind = "array" if isinstance(value, np.ndarray) else "number"
    return {kind: [array.dtype.str, list(array.shape), order, packed]}


def restored(data: Any, classes: tuple[type, ...]) -> Any:
    """The value of ``plain`` data; only ``classes`` are made.

    Raises:
        LookupError, TypeError, ValueError: it is no such data.
    """
    if isinstance(data, list):
        return [restored(part, classes) for part in data]
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    if kind in ("array", "number"):
        dtype, shape, order, packed = content
        array = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.dtype(dtype))
        array = array.reshape(shape, order=order).copy(order="K")
        return array if kind == "array" else array[()]
    if kind == "of":
        name, parts = content
        made = {one.__name__: one for one in classes}[name]
        return made(**{key: restored(part, classes) for key, part in parts.items()})
    if kind == "pairs":
        return {restored(key, classes): restored(part, classes) for key, part in content}
    makers: dict[str, Callable[[Any], Any]] = {
        "tuple": lambda parts: tuple(restored(part, classes) for part in parts),
        "set": lambda parts: frozenset(restored(part, classes) for part in parts),
        "float": float,
        "path": Path,
    }
    return makers[kind](content)

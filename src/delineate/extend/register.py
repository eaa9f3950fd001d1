"""Registers: named parts of one kind, from the package itself, scripts and installed packages.

A part is found in three places, in this order: what is registered already, the package's own module
(``home``), and the entry points of the group ``delineate.NOUNs``. An entry point is loaded when its
part is looked up, or when all parts are listed. This module knows no kind of part.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..core.errors import PartError

P = TypeVar("P")
OWN = "delineate"


@dataclass(frozen=True)
class Origin:
    """Where a part comes from.

    Args:
        package, version: of its distribution; "" if it belongs to none, such as a script.
        module: in which its function or class is defined.
        source_sha256: of the source file of that module; "" if it has none.
    """

    package: str
    version: str
    module: str
    source_sha256: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}" if self.package else f"the module {self.module}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def of(cls, work: Any) -> Origin:
        """The origin of a function or class."""
        module = _module_of(work)
        package = _distribution(module.partition(".")[0])
        version = metadata.version(package) if package else ""
        return cls(package, version, module, _source_sha256(work))


class Register(Generic[P]):
    """The parts of one kind, by name.

    Args:
        noun: what a part is called in messages, such as "metric".
        plural: the end of the group of entry points, such as "metrics".
        home: module that registers the package's own parts.
        kinds: classes of the parts.
        on_add: called with the name and each part that is not delineate's own, before it is kept.
    """

    def __init__(
        self,
        noun: str,
        plural: str,
        home: str,
        *kinds: type,
        on_add: Callable[[str, P], None] | None = None,
    ):
        self.noun, self.group, self.home = noun, f"{OWN}.{plural}", home
        self.kinds, self._on_add = kinds, on_add
        self._parts: dict[str, P] = {}

    def add(self, name: str, part: P) -> P:
        """Register a part; returns it.

        Raises:
            PartError: the name is in use, or is not a name.
            TypeError: ``part`` is of another class.
        """
        if not isinstance(part, self.kinds):
            allowed = " or ".join(kind.__name__ for kind in self.kinds)
            raise TypeError(f"a {self.noun} is a {allowed}, found {type(part).__name__}")
        if not re.fullmatch(r"[\w. -]+", name):
            raise PartError(
                f"the name of a {self.noun} has letters, digits, dots, spaces, hyphens and _, "
                f"found {name!r}"
            )
        module = _module_of(_work(part))
        if not _is_own(module):
            importlib.import_module(self.home)  # so that its names are known
        # A notebook cell or a module that is run again replaces its own part.
        if name in self._parts and _module_of(_work(self._parts[name])) != module:
            raise PartError(f"there is a {self.noun} {name} already, from {self.origin(name)}")
        if self._on_add is not None and not _is_own(module):
            self._on_add(name, part)
        self._parts[name] = part
        return part

    def __getitem__(self, name: str) -> P:
        """The part with this name.

        Raises:
            PartError: there is none, or its package cannot be loaded.
        """
        if name not in self._parts:
            importlib.import_module(self.home)
        if name not in self._parts:
            for point in _entry_points(self.group):
                if point.name == name:
                    self._load(point)
        if name not in self._parts:
            known = self.names()
            near = difflib.get_close_matches(name, known, n=1)
            raise PartError(
                f"unknown {self.noun} {name!r}{f' (did you mean {near[0]}?)' if near else ''}; "
                f"available: {', '.join(known)}"
            )
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        """All names; see ``names``."""
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> tuple[str, ...]:
        """All names, the package's own first; no entry point is loaded."""
        importlib.import_module(self.home)
        points = (point.name for point in _entry_points(self.group))
        return tuple(dict.fromkeys((*self._parts, *points)))

    def items(self) -> Iterator[tuple[str, P]]:
        """All parts with their names. One that cannot be loaded is left out with a warning."""
        for name in self.names():
            try:
                part = self[name]
            except PartError as error:
                warnings.warn(str(error), stacklevel=2)
            else:
                yield name, part

    def values(self) -> Iterator[P]:
        """All parts; see ``items``."""
        return (part for _, part in self.items())

    def origin(self, name: str) -> Origin:
        """Where a part comes from.

        Raises:
            PartError: there is no such part.
        """
        return Origin.of(_work(self[name]))

    def is_own(self, name: str) -> bool:
        """Whether a part belongs to delineate itself.

        Raises:
            PartError: there is no such part.
        """
        return _is_own(_module_of(_work(self[name])))

    def name_of(self, work: Callable[..., Any], make: Callable[[Callable[..., Any]], P]) -> str:
        """The name of the part that does its work with ``work``; without one, ``work`` is
        registered under its full name as the part ``make(work)``.
        """
        for name, part in self._parts.items():
            if _work(part) is work:
                return name
        module, title = _module_of(work), getattr(work, "__qualname__", type(work).__name__)
        name = re.sub(r"[^\w.-]", "", title if module == "__main__" else f"{module}.{title}")
        self.add(name, make(work))
        return name

    def _load(self, point: metadata.EntryPoint) -> None:
        """Load an entry point: a part, or code that registers the part."""
        package = point.dist.name if point.dist is not None else point.value
        try:
            found = point.load()
            if point.name not in self._parts and isinstance(found, self.kinds):
                self.add(point.name, found)  # type: ignore[arg-type]
        except Exception as error:  # anything may be wrong in somebody else's module
            raise PartError(
                f"the {self.noun} {point.name} of the package {package} cannot be loaded "
                f"({type(error).__name__}: {error})"
            ) from error
        if point.name not in self._parts:
            raise PartError(
                f"the package {package} names a {self.noun} {point.name}, but {point.value} does "
                "not register it"
            )


def _entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    return tuple(_all_entry_points().select(group=group))


@functools.cache
def _all_entry_points() -> Any:
    """Those of every installed package, which are read once for all groups."""
    return metadata.entry_points()


@functools.cache
def _distribution(top: str) -> str:
    """The name of the distribution that contains a top-level package; "" if there is none."""
    return next(iter(metadata.packages_distributions().get(top, ())), "")


def _work(part: Any) -> Any:
    """The function or class that does the work of a part: its first field that can be called."""
    values = (getattr(part, field.name) for field in fields(part))
    return _unwrapped(next((value for value in values if callable(value)), part))


def _unwrapped(work: Any) -> Any:
    while isinstance(work, functools.partial) or hasattr(work, "__wrapped__"):
        work = work.func if isinstance(work, functools.partial) else work.__wrapped__
    return work


def _module_of(work: Any) -> str:
    return str(getattr(work, "__module__", None) or type(work).__module__)


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == OWN


def _source_sha256(work: Any) -> str:
    """Of the file in which ``work`` is defined; in a notebook, of its own source."""
    work = work if inspect.isclass(work) or hasattr(work, "__code__") else type(work)
    try:
        path = inspect.getsourcefile(work)
        if path is not None and Path(path).is_file():
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return hashlib.sha256(inspect.getsource(work).encode()).hexdigest()
    except (OSError, TypeError):
        return ""

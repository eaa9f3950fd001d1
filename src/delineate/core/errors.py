"""The error tree: every failure that a user can cause, each reported in one sentence.

    DelineateError            exit code 2 or 3 at the command line, never a traceback
    ├── UsageError            arguments or options that cannot be combined
    │   └── PartError         a registered part that is unknown, broken or registered twice
    ├── InputError            a file or folder that cannot be used
    │   ├── FormatError       unknown, truncated or unreadable format, or one that is refused
    │   ├── GeometryError     unknown, contradictory or refused image geometry
    │   ├── LabelError        undeclared or unsuitable label values or names
    │   ├── StoreError        a prepared case that is missing or damaged
    │   └── LayoutError       no cases, unpaired files, or an unrecognised layout
    │       └── LeakError     a patient on two sides of a split
    ├── PlanError             a plan with an unknown key, or with values that exclude each other
    ├── BundleError           a model file that is damaged, changed or of another version
    ├── OutputError           nothing could be written (full disk, no permission, exists already)
    └── TrainingError         training cannot continue (no foreground, loss not finite)
        └── RankError         one of several processes of a training cannot do its share
            └── LostRankError     one of them was lost; the same command continues

Each message says what was found and what is allowed, and names the case and the file if there is
one. This module does not know how errors are displayed.
"""

from __future__ import annotations

import importlib
import re
from os import PathLike, fspath
from typing import Any


class DelineateError(Exception):
    """Base of all errors; ``str()`` is one sentence that names the case and the file.

    Args:
        message: what was found and what is allowed.
        case: id of the case, if there is one.
        path: the file or folder, if there is one.

    >>> try:
    ...     raise InputError("is empty", path="ct.nii.gz")
    ... except DelineateError as error:
    ...     print(error)
    ct.nii.gz: is empty
    """

    def __init__(
        self, message: str, *, case: str | None = None, path: str | PathLike[str] | None = None
    ):
        self.message = message
        self.case = case
        self.path = None if path is None else fspath(path)
        super().__init__(message)

    def __str__(self) -> str:
        where = [] if self.case is None else [f"case {self.case}"]
        if self.path is not None and not _is_named_in(self.path, self.message):
            where.append(self.path)
        return f"{': '.join(where)}: {self.message}" if where else self.message

    def of_case(self, case: str) -> DelineateError:
        """Return this error with ``case`` set, unless it already names a case.

        For a caller that knows the case when the code that raised the error does not.

        >>> print(InputError("is empty", path="ct.nii.gz").of_case("p1"))
        case p1: ct.nii.gz: is empty
        """
        if self.case is None:
            self.case = case
        return self

    # Keyword fields must survive pickling, when an error returns from a worker process.
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return _rebuild, (type(self), self.message, self.case, self.path)


def _is_named_in(path: str, message: str) -> bool:
    """Whether the message names the path itself, not a longer path or word that contains it."""
    return re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w/-]|\.\w)", message) is not None


def _rebuild(
    kind: type[DelineateError], message: str, case: str | None, path: str | None
) -> DelineateError:
    return kind(message, case=case, path=path)


class UsageError(DelineateError):
    """Arguments or options that cannot be combined."""


class PartError(UsageError):
    """A registered part that is unknown, not installed, broken, or registered twice."""


class InputError(DelineateError):
    """A file or folder that cannot be used."""


class FormatError(InputError):
    """Unknown, truncated or unreadable format, or one that is refused."""


class GeometryError(InputError):
    """Unknown, contradictory or refused image geometry."""


class LabelError(InputError):
    """Undeclared or unsuitable label values or names."""


class StoreError(InputError):
    """A prepared case that is missing or damaged; it can be prepared again."""


class LayoutError(InputError):
    """No cases, unpaired files, or an unrecognised layout."""


class LeakError(LayoutError):
    """A patient with cases on two sides of a split."""


class PlanError(DelineateError):
    """A plan with an unknown key, or with values that exclude each other."""


class BundleError(DelineateError):
    """A model file that is damaged, changed or of another version."""


class OutputError(DelineateError):
    """Nothing could be written: full disk, no permission, or it exists already."""


class TrainingError(DelineateError):
    """Training cannot continue: no foreground, or a loss that is not finite."""


class RankError(TrainingError):
    """One of several processes of a training cannot do its share."""


class LostRankError(RankError):
    """One of several processes of a training was lost; the same command continues the training."""


def optional_package(name: str, what: str) -> Any:
    """Import a package that no extra installs, or a module of it.

    Args:
        name: import name.
        what: what needs it, the subject of the error's sentence.

    Raises:
        UsageError: it is not installed; the sentence has the command that installs it.

    >>> optional_package("json", "this").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is installed, but lacks one of its own requirements
        raise UsageError(missing_sentence(what, [package], package)) from error


def missing_sentence(what: str, missing: list[str], asked: str) -> str:
    """The sentence about missing packages, with the command that installs what is ``asked``."""
    names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    number = ("package", "is") if len(missing) == 1 else ("packages", "are")
    return (
        f"{what} needs the {number[0]} {names}, which {number[1]} not installed; install with: "
        f"pip install {asked}"
    )

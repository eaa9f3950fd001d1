"""The error tree: every failure a user can cause, each told in one sentence.

    DelineateError            exit code 2 at the command line, never a traceback
    ├── UsageError            the words of the call do not fit together
    ├── InputError            a file or folder that cannot be used
    │   ├── FormatError       unknown, truncated, unreadable, or of a kind that is refused
    │   ├── GeometryError     where the voxels stand is unknown, contradictory or refused
    │   ├── LabelError        label values or names that were not declared, or do not fit
    │   └── LayoutError       no cases, unpaired files, a layout that cannot be told
    ├── PlanError             a plan with an unknown key or values that exclude each other
    ├── BundleError           a model file that is damaged, changed or of another version
    ├── OutputError           nothing could be written (full disk, no permission, exists already)
    └── TrainingError         training cannot go on (no foreground, loss not finite)

Each says what was found and what is allowed, and names the case and the file where there is one.
It knows nothing of how errors are shown.
"""

from __future__ import annotations

import re
from os import PathLike, fspath


class DelineateError(Exception):
    """Base of all; ``str()`` is one sentence that names the case and the file.

    Args:
        message: what was found and what is allowed.
        case: id of the case, if there is one.
        path: the file or folder, if there is one.
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
        if self.path is not None and not _stands_in(self.path, self.message):
            where.append(self.path)
        return f"{': '.join(where)}: {self.message}" if where else self.message

    def of_case(self, case: str) -> DelineateError:
        """This error, naming ``case`` where it named none yet; for the door that knows the case."""
        if self.case is None:
            self.case = case
        return self

    def __reduce__(self):  # type: ignore[no-untyped-def]  # keyword fields survive the way back from a worker process
        return _rebuild, (type(self), self.message, self.case, self.path)


def _stands_in(path: str, message: str) -> bool:
    """Whether the message names the path itself, not a longer path or word that holds it."""
    return re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w/-]|\.\w)", message) is not None


def _rebuild(
    kind: type[DelineateError], message: str, case: str | None, path: str | None
) -> DelineateError:
    return kind(message, case=case, path=path)


class UsageError(DelineateError):
    """The words of the call do not fit together."""


class InputError(DelineateError):
    """A file or folder that cannot be used."""


class FormatError(InputError):
    """Unknown, truncated, unreadable, or of a kind that is refused."""


class GeometryError(InputError):
    """Where the voxels stand is unknown, contradictory or refused."""


class LabelError(InputError):
    """Label values or names that were not declared, or do not fit."""


class LayoutError(InputError):
    """No cases, unpaired files, or a layout that cannot be told."""


class PlanError(DelineateError):
    """A plan with an unknown key or values that exclude each other."""


class BundleError(DelineateError):
    """A model file that is damaged, changed or of another version."""


class OutputError(DelineateError):
    """Nothing could be written: full disk, no permission, or it exists already."""


class TrainingError(DelineateError):
    """Training cannot go on: no foreground, or a loss that is not finite."""

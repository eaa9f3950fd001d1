"""Packages that are not installed: the sentence about them, and packages that no extra installs."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UsageError


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

"""Optional packages: what each extra of the distribution installs, and the refusal without it.

The core reads, checks, converts, evaluates and reports; everything else is an extra. A command
asks for its extra before any work, so that a missing package costs no time.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from .core.errors import UsageError

DISTRIBUTION = "delineate-imaging"  # the name in package indexes; the import name is delineate
# Extra -> the packages, by import name, that the code of this extra imports.
EXTRAS = {
    "predict": ("torch",),
    "train": ("torch", "lightning_fabric", "blosc2"),
    "dicom": ("highdicom", "jpeg_ls", "openjpeg", "gdcm"),
    "itk": ("SimpleITK",),
    "tensorboard": ("torch", "tensorboard"),
}


def require_extra(extra: str, what: str) -> None:
    """Check that the packages of an extra are installed; imports none of them.

    Args:
        extra: a key of ``EXTRAS``.
        what: what needs them, the subject of the error's sentence.

    Raises:
        UsageError: a package is missing; the sentence has the command that installs it.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(_sentence(what, missing, f'"{DISTRIBUTION}[{extra}]"'))


def require_package(name: str, what: str) -> None:
    """Check that a package that no extra installs is installed; see ``require_extra``.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec(name) is None:
        raise UsageError(_sentence(what, [name], name))


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
        raise UsageError(_sentence(what, [package], package)) from error


def _sentence(what: str, missing: list[str], asked: str) -> str:
    names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    number = ("package", "is") if len(missing) == 1 else ("packages", "are")
    return (
        f"{what} needs the {number[0]} {names}, which {number[1]} not installed; install with: "
        f"pip install {asked}"
    )

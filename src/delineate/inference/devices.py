"""Which device networks run on: the words a user may give, and what this machine has.

``refuse_unknown`` needs no torch, so that a wrong word is refused before anything slow is loaded.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..core.errors import UsageError

if TYPE_CHECKING:
    import torch

ALLOWED = "auto, cpu, cuda or cuda:N"
_NAMES = re.compile(r"auto|cpu|cuda(:\d+)?")


def refuse_unknown(name: str) -> None:
    """Refuse what names no device that this program runs on.

    Raises:
        UsageError: ``name`` is not one of ``ALLOWED``.
    """
    if not _NAMES.fullmatch(name):
        raise UsageError(f"no device is called {name!r}; allowed are {ALLOWED}")


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" takes the first CUDA GPU where there is one, else the CPU.

    Raises:
        UsageError: an unknown name, or a GPU that this machine (or this build of torch) does not
            have.
    """
    refuse_unknown(name)
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = (
            "" if torch.version.cuda else f", and torch {torch.__version__} is a build without CUDA"
        )
        raise UsageError(
            f"device {name} was asked for, but no CUDA GPU is found{build}; allowed here are "
            "auto and cpu"
        )
    found = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= found:
        raise UsageError(
            f"device {name} was asked for, but there are only {found} CUDA GPU(s); they count "
            "from cuda:0"
        )
    return torch.device(name)

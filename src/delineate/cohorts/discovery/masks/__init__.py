"""The structures of a cohort's masks: what the paths state, and what follows from the values."""

from .rules import derive
from .stated import set_stated_names

__all__ = ["derive", "set_stated_names"]

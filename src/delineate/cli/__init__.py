"""The command line: ``delineate COMMAND``; each command is one function in ``command_line``."""

from .command_line import app, main

__all__ = ["app", "main"]

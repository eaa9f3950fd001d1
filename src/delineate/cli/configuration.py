"""Defaults of options from a file ``delineate.toml``.

    [train]
    budget = "30m"

    [all]
    device = "cpu"

A section is a command, or ``all`` for every command that has the option; a key is the long name of
an option. The command line wins over the file, and a command's section over ``all``. The allowed
keys are the options of the commands themselves, so this module has no list of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from ..core.errors import InputError, UsageError
from ..core.inputs import refuse_special

NAME = "delineate.toml"
ALL = "all"
# Options that destroy, or that concern one call: they must be given each time.
EACH_TIME = {"help", "dry-run", "overwrite", "extend", "yes", "list", "keep", "status", "stop"}


def find() -> Path | None:
    """The file in the current folder, in the nearest of its parents, or in the user's configuration
    folder; None if there is none.
    """
    here = Path.cwd()
    places = (here, *here.parents, Path(typer.get_app_dir("delineate")))
    return next((place / NAME for place in places if (place / NAME).is_file()), None)


def read(path: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        InputError: it cannot be read, or is not TOML.
    """
    refuse_special(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except ValueError as error:
        raise InputError(f"is not TOML ({error})", path=path) from error


def defaults(
    path: Path, commands: Mapping[str, Any], context: typer.Context
) -> dict[str, dict[str, Any]]:
    """Command -> parameter -> default, as typer's ``default_map``.

    Args:
        path: the file.
        commands: name -> command of typer.
        context: of the call.

    Raises:
        UsageError: an unknown section, key or value; the message names the file, the key and the
            nearest allowed one.
        InputError: see ``read``.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in commands}
    options = {name: _options(command) for name, command in commands.items()}
    given = read(path)
    for section in sorted(given, key=lambda name: name != ALL):
        if section != ALL and section not in options:
            raise _unknown(path, f"[{section}]", section, (ALL, *options))
        if not isinstance(given[section], dict):
            raise UsageError(f"{section} must be in the section of a command", path=path)
        chosen = options if section == ALL else {section: options[section]}
        for key, value in given[section].items():
            having = {name: own[key] for name, own in chosen.items() if key in own}
            if not having:
                allowed = {one for own in chosen.values() for one in own}
                raise _unknown(path, f"{key} in [{section}]", key, allowed)
            for name, parameter in having.items():
                where = f"{key} in [{section}]"
                found[name][parameter.name] = _value(parameter, value, context, where, path)
    return found


def _options(command: Any) -> dict[str, Any]:
    """Long name -> parameter of a command, without those in ``EACH_TIME``."""
    return {
        flag[2:]: parameter
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--") and flag[2:] not in EACH_TIME
    }


def _unknown(path: Path, what: str, name: str, allowed: Iterable[str]) -> UsageError:
    nearest = get_close_matches(name, sorted(allowed), 1, cutoff=0.0)[0]
    return UsageError(f"unknown {what}; the nearest is {nearest}", path=path)


def _value(parameter: Any, value: Any, context: typer.Context, where: str, path: Path) -> Any:
    """A value of the file in the form in which the command line gives it.

    Raises:
        UsageError: another type than the option has.
    """
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise UsageError(f"{where} must be true or false, found {value!r}", path=path)
        return value
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in given):
        raise UsageError(
            f"{where} must be text, a number, or a list of them, found {value!r}", path=path
        )
    words = [str(one) for one in given]
    shown = words if parameter.multiple else ",".join(words)
    try:
        parameter.process_value(context, shown)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {error.message}", path=path) from error
    return shown

"""Options dataclasses as options of the command line: one function does it for all commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from ..commands.options import Spelling


def with_options(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that has the parameter ``options`` of type ``kind``: on the command line
    it is replaced by one option per field.

    Args:
        kind: a frozen dataclass of ``commands.options``.

    Raises:
        TypeError: a field has no spelling, so that it would have no help.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, localns={kind.__name__: kind}, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name != "options"
        ]
        types = get_type_hints(kind)
        expanded = [_parameter(one, types[one.name]) for one in fields(kind)]

        @functools.wraps(function)
        def command(**given: Any) -> None:
            values = {one.name: _value(one, given.pop(one.name)) for one in fields(kind)}
            function(**given, options=kind(**values))

        # Typer reads both.
        signature = inspect.Signature([*own, *expanded])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return decorate


def _spelling(one: Field[Any]) -> Spelling:
    spelling = one.metadata.get("spelling")
    if not isinstance(spelling, Spelling):
        raise TypeError(f"option {one.name} has no help; declare it with option(...)")
    return spelling


def _parameter(one: Field[Any], hint: Any) -> inspect.Parameter:
    """The field as a parameter that typer understands. Values that we parse ourselves are text, and
    None if they are not given.
    """
    spelling, default = _spelling(one), one.default
    if spelling.repeated:
        hint, default = list[str] | None, None
    elif spelling.parse is not None:
        hint, default = str | None, None
    how = typer.Option(*spelling.flags, help=spelling.help, metavar=spelling.metavar)
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, how]
    )


def _value(one: Field[Any], given: Any) -> Any:
    spelling = _spelling(one)
    if given is None or (spelling.repeated and not given):
        return one.default
    if spelling.parse is not None:
        return spelling.parse(given)
    return tuple(given) if spelling.repeated else given

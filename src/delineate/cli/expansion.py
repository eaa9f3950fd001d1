"""Options dataclasses as options of the command line: one function does it for all commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..commands.options import AnyPath, Spelling
from ..core.errors import UsageError

CONTEXT = "typer_context"  # the parameter by which typer passes its context


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
            context = given.pop(CONTEXT)
            values = {one.name: _value(one, given.pop(one.name), context) for one in fields(kind)}
            function(**given, options=kind(**values))

        # Typer reads both.
        how = inspect.Parameter.KEYWORD_ONLY
        context = inspect.Parameter(CONTEXT, how, annotation=typer.Context)
        signature = inspect.Signature([context, *own, *expanded])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return decorate


def completion(choices: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes a word in a shell by the choices that begin with it."""

    def complete(incomplete: str) -> list[str]:
        return [one for one in choices() if one.startswith(incomplete)]

    return complete


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
    elif hint == AnyPath | None:
        hint = Path | None
    how = typer.Option(
        *spelling.flags,
        help=spelling.help,
        metavar=spelling.metavar,
        min=spelling.low,
        max=spelling.high,
        autocompletion=None if spelling.choices is None else completion(spelling.choices),
    )
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, how]
    )


def _value(one: Field[Any], given: Any, context: typer.Context) -> Any:
    """The value of the field; an error names the option, and the file if its value is from one."""
    spelling = _spelling(one)
    if given is None or (spelling.repeated and not given):
        return one.default
    try:
        if spelling.parse is not None:
            return spelling.parse(given)
        return tuple(given) if spelling.repeated else given
    except UsageError as error:
        source = context.get_parameter_source(one.name)
        is_default = source is not None and source.name == "DEFAULT_MAP"
        flag = (spelling.flags or (f"--{one.name.replace('_', '-')}",))[-1]
        error.path = str(context.obj) if is_default else error.path
        error.message = error.message if flag in error.message else f"{flag}: {error.message}"
        raise

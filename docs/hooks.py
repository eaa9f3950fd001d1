"""What the site generates from the code at each build: the pages of the command line and of the
Python interface, the outputs of the notebooks, and the lists of pages in the navigation.

A page contains a marker, such as ``<!-- generated: commands -->``, which is replaced here. MkDocs
calls the functions whose names begin with ``on_``.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe
import notebooks
from typer.main import get_command

DOCS = Path(__file__).parent


def on_config(config: Any) -> Any:
    """Replace the entries of the navigation that contain a star."""
    config["nav"] = list(expanded(config["nav"]))
    return config


def expanded(entries: list[Any]) -> Iterator[Any]:
    """The navigation with each pattern replaced by the pages that it matches; a section without a
    page is left out.
    """
    for entry in entries:
        if isinstance(entry, dict):
            for title, inner in entry.items():
                if isinstance(inner, str):
                    yield entry
                elif pages := list(expanded(inner)):
                    yield {title: pages}
        elif "*" in entry:
            pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob(entry))
            yield from sorted(pages, key=lambda page: not page.endswith("index.md"))
        else:
            yield entry


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page."""
    markdown = re.sub(
        r"<!-- generated: notebook (\S+) -->",
        lambda found: notebooks.markdown(executed(found[1])),
        markdown,
    )
    for marker, write in GENERATED.items():
        line = f"<!-- generated: {marker} -->"
        if line in markdown:
            markdown = markdown.replace(line, write())
    return markdown


def on_post_build(config: Any, **_: Any) -> None:
    """The notebooks that the site offers for download have their outputs."""
    for path in sorted(DOCS.rglob("*.ipynb")):
        target = Path(config["site_dir"]) / path.relative_to(DOCS)
        target.write_text(notebooks.executed(path, executed(path.stem)), encoding="utf-8")


@cache
def executed(name: str) -> list[notebooks.Cell]:
    """The cells of a notebook of the tutorials, with their outputs; without them if the environment
    asks for it, as the tests of the site do, because other tests run the notebooks.
    """
    path = DOCS / "tutorials" / f"{name}.ipynb"
    return notebooks.read(path) if os.environ.get("NOTEBOOKS") == "unrun" else notebooks.run(path)


def commands() -> str:
    """Every command with its help, its arguments and its options, from the command line itself."""
    from delineate.cli import app

    group = get_command(app)
    written = [_command((), name, command) for name, command in _commands(group)]
    return "\n\n".join(["## Global options", _table(group.params), *written])


def _commands(group: Any) -> list[tuple[str, Any]]:
    return sorted((name, one) for name, one in group.commands.items() if not one.hidden)


def _command(above: tuple[str, ...], name: str, command: Any) -> str:
    path = (*above, name)
    title = f"{'#' * (len(above) + 2)} `delineate {' '.join(path)}`"
    parts = [title, inspect.cleandoc(command.help or "")]
    if getattr(command, "commands", None):
        return "\n\n".join([*parts, *(_command(path, *inner) for inner in _commands(command))])
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = ["delineate", *path, *(["[OPTIONS]"] if options else []), *map(_placeholder, arguments)]
    return "\n\n".join([*parts, f"```text\n{' '.join(usage)}\n```", _table(command.params)])


def _table(parameters: list[Any]) -> str:
    """Arguments, then options; hidden ones are left out."""
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option" and not p.hidden]
    rows = [(f"`{_placeholder(p)}`", p.help, "") for p in arguments]
    rows += [(_spelling(p), p.help, _default(p)) for p in options]
    table = ["| argument or option | meaning | default |", "|---|---|---|"]
    table += [f"| {' | '.join(_cell(text or '') for text in row)} |" for row in rows]
    return "\n".join(table)


def _placeholder(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _spelling(option: Any) -> str:
    value = option.metavar or option.opts[-1].strip("-").replace("-", "_").upper()
    names = [f"`{name}`" for name in (*option.opts, *option.secondary_opts)]
    if not option.is_flag:
        names[-1] = f"{names[-1][:-1]} {value}`"
    return ", ".join(names) + (" (required)" if option.required else "")


def _default(option: Any) -> str:
    if option.default is True and option.secondary_opts:
        return f"`{option.opts[0]}`"
    if option.default is None or option.default is False or option.default in ((), [], ""):
        return ""
    return f"`{option.default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def python() -> str:
    """Every public name of the package."""
    import delineate

    return _names(delineate)


def extensions() -> str:
    """Every public name of ``delineate.extend``."""
    from delineate import extend

    return _names(extend)


def _names(module: ModuleType) -> str:
    """Functions, classes and constants of a module, in the order of its ``__all__``."""
    found = {name: getattr(module, name) for name in module.__all__}
    functions = [name for name, value in found.items() if inspect.isfunction(value)]
    # A second name of a class stands with the other names.
    classes = [n for n, value in found.items() if inspect.isclass(value) and value.__name__ == n]
    others = [name for name in found if name not in {*functions, *classes}]
    parts = []
    for title, names in (("Functions", functions), ("Classes", classes)):
        if names:
            parts += [f"## {title}", *(f"::: {module.__name__}.{name}" for name in names)]
    if others:
        parts += ["## Other names", *(_constant(module, name) for name in others)]
    return "\n\n".join(parts)


def _constant(module: ModuleType, name: str) -> str:
    """A value, which has no docstring of its own."""
    value = getattr(module, name)
    title = f"### `{name}` {{ #{module.__name__}.{name} }}"
    if inspect.isclass(value):
        return f"{title}\n\nAnother name of `{value.__name__}`."
    if inspect.ismodule(value):
        return f"{title}\n\n{(value.__doc__ or '').partition(chr(10) * 2)[0]}"
    if hasattr(value, "noun"):
        return f"{title}\n\nThe register of every {value.noun}."
    if isinstance(value, str):
        return f"{title}\n\n`{value!r}`"
    first = value[0] if isinstance(value, tuple) and value else None
    if isinstance(first, str):
        return f"{title}\n\n{', '.join(f'`{each}`' for each in value)}."
    if hasattr(first, "noun"):
        return f"{title}\n\nThe registers of every {', '.join(each.noun for each in value)}."
    return f"::: {module.__name__}.{name}"


def errors() -> str:
    """The tree of errors, from the docstring of its module."""
    from delineate.core import errors

    tree = re.search(r"( {4}DelineateError.*?\n)\n", errors.__doc__ or "", flags=re.DOTALL)
    assert tree, "the docstring of core.errors has no tree"
    return f"```text\n{inspect.cleandoc(tree[1])}\n```"


def formats() -> str:
    """The formats of scans and masks, from their register."""
    from delineate.extend import FORMATS

    rows = ["| format | endings | reads | writes |", "|---|---|---|---|"]
    for name, part in FORMATS.items():
        written = ", ".join(f"`{ending}`" for ending in part.writes)
        endings = ", ".join(f"`{ending}`" for ending in part.endings)
        rows.append(f"| {name} | {endings or 'by content'} | yes | {written} |")
    return "\n".join(rows)


def terms() -> str:
    """Every name of a channel or a structure, from the tables."""
    from delineate.core.terms import anatomy, sequences

    channels = {
        "Images": sequences.WORDS,
        "Techniques, if no other word names a weighting": sequences.TECHNIQUES,
        "Words that modify an image": sequences.MODIFIERS,
        "Words without a meaning, and derived images": {
            "no meaning": sequences.NEUTRAL,
            "derived": sequences.DERIVED,
        },
    }
    structures = {
        "Organs": anatomy.ORGANS,
        "Heart": anatomy.HEART,
        "Brain": anatomy.BRAIN,
        "Lesions": anatomy.LESIONS,
        "Abbreviations with a side": anatomy.ABBREVIATIONS,
        "Vertebrae and ribs": anatomy.LEVELS,
        "Codes that are written": anatomy.CODED,
        "Codes that are read": anatomy.CODES,
        "Codes of words of abnormal structures": anatomy.ABNORMAL,
        "Numbers of FreeSurfer": {
            f"freesurfer {n}": name for n, name in anatomy.FREESURFER.items()
        },
    }
    parts = []
    for title, tables in (("Channels", channels), ("Structures", structures)):
        parts.append(f"## {title}")
        for name, table in tables.items():
            rows = [f"| {one} | {_cell(names)} |" for one, names in table.items()]
            parts += [f"### {name}", "\n".join(["| | names |", "|---|---|", *rows])]
    return "\n\n".join(parts)


GENERATED = {
    "commands": commands,
    "errors": errors,
    "extensions": extensions,
    "formats": formats,
    "python": python,
    "terms": terms,
}


class DocstringExamples(griffe.Extension):
    """Shows the examples of docstrings as code, wherever they stand: without a section of their own
    they would be text.
    """

    EXAMPLE = re.compile(r"^( *)(>>> .*(?:\n *\S.*)*)", re.MULTILINE)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            block = r"\1```pycon\n\1\2\n\1```"
            obj.docstring.value = self.EXAMPLE.sub(block, obj.docstring.value)

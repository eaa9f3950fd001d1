"""The examples in docstrings run and give what they show, in a folder with a small cohort, a model,
its run, a scan and scores; every public name has one.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

import delineate
from delineate.extend import REGISTERS

SOURCE = Path(__file__).parents[1] / "src"
WITH_EXAMPLES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.fixture
def registers_as_before(monkeypatch):
    """What an example registers is forgotten after it, but for the package's own parts."""
    for register in REGISTERS:
        importlib.import_module(register.home)
        monkeypatch.setattr(register, "_parts", dict(register._parts))


@pytest.mark.parametrize("name", WITH_EXAMPLES)
@pytest.mark.usefixtures("registers_as_before")
def test_examples(name, example_folder, monkeypatch):
    monkeypatch.chdir(example_folder)
    module = importlib.import_module(name)
    has_pandas = importlib.util.find_spec("pandas") is not None  # no extra installs it
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in finder.find(module, extraglobs={"np": np}):
        if has_pandas or "to_frame()" not in example.docstring:
            runner.run(example)
    assert runner.tries > 0 and runner.failures == 0


def public() -> list[tuple[str, object]]:
    """Every public name, and the public methods and properties that its class defines."""
    found: list[tuple[str, object]] = []
    for name in delineate.__all__:
        one = getattr(delineate, name)
        found.append((name, one))
        if inspect.isclass(one) and not name.endswith(("Options", "Manifest")):
            found += [(f"{name}.{inner}", member) for inner, member in members(one)]
    return found


def members(cls: type) -> list[tuple[str, object]]:
    """The public methods and properties that a class of ours defines itself."""
    found = [
        (name, member.fget if isinstance(member, property) else getattr(member, "__func__", member))
        for name, member in vars(cls).items()
        if not name.startswith("_")
    ]
    return [(name, member) for name, member in found if inspect.isfunction(member)]


# A type; another name of Cohort; a module; packages that are not installed for tests.
NEEDS_NO_EXAMPLE = ("ImageLike", "Manifest", "extend", ".to_torchio", ".to_monai")
PUBLIC = [(name, one) for name, one in public() if not name.endswith(NEEDS_NO_EXAMPLE)]


@pytest.mark.parametrize(("name", "one"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_every_public_name_has_an_example(name, one):
    text = inspect.getdoc(one) or ""
    if "." in name and ">>> " not in text:
        # An example of the class, or of another method, that uses it.
        owner, _, method = name.partition(".")
        cls = getattr(delineate, owner)
        texts = [inspect.getdoc(cls) or "", *(inspect.getdoc(m) or "" for _, m in members(cls))]
        text = "\n".join(
            line for whole in texts for line in whole.splitlines() if f".{method}" in line
        )
    assert ">>> " in text

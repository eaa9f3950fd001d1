"""The examples in docstrings run and give what they show, in a folder with a small cohort, a model,
its run, a scan and scores; every public name has one.
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest

import delineate
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions

SOURCE = Path(__file__).parents[1] / "src"
GOLDEN = Path(__file__).parent / "golden" / "schema_1"
WITH_EXAMPLES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """cohort/ plan.json split.json; liver.model with its run; ct.nii.gz, mask.nii.gz; scores/."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(GOLDEN / "cohort", folder / "cohort")
    (folder / "cohort/labels.csv").write_text("value,name\n1,left part\n2,right part\n")
    for name in ("plan.json", "split.json"):
        shutil.copy(GOLDEN / name, folder / name)
    shutil.copytree(GOLDEN / "finished" / "m.model.run", folder / "liver.model.run")
    shutil.copy(GOLDEN / "finished" / "m.model", folder / "liver.model")
    shutil.copytree(GOLDEN / "finished" / "m.model.graphs", folder / "liver.model.graphs")
    for path in (folder / "liver.model.run").rglob("*.json*"):
        path.write_text(path.read_text().replace("@ROOT@", str(folder)))
    shutil.copy(folder / "cohort/images/c0.nii.gz", folder / "ct.nii.gz")
    shutil.copy(folder / "cohort/labels/c0.nii.gz", folder / "mask.nii.gz")
    options = EvaluateOptions(workers=1, report=False)
    evaluate(folder / "cohort/labels", folder / "cohort", folder / "scores", options)
    return folder


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name, place, monkeypatch):
    monkeypatch.chdir(place)
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
        if inspect.isclass(one) and not name.endswith("Options"):
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


NEEDS_NO_EXAMPLE = {"ImageLike", "Manifest"}  # a type, and another name of Cohort
PUBLIC = [(name, one) for name, one in public() if name not in NEEDS_NO_EXAMPLE]


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

"""Every extension point has a how-to page, and the example of each page runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from delineate import extend
from delineate.extend.registers import running

ROOT = Path(__file__).parents[1]
PAGES = {
    register.noun: ROOT / "docs" / "how-to" / f"extend-{register.noun.split()[0]}.md"
    for register in extend.REGISTERS
}


@pytest.mark.parametrize("register", extend.REGISTERS, ids=lambda register: register.noun)
def test_every_extension_point_has_its_page(register):
    text = PAGES[register.noun].read_text(encoding="utf-8")
    assert f'[project.entry-points."{register.group}"]' in text
    example = "".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    assert 10 < len(example.splitlines()) < 60 and "assert" in example


def test_the_examples_run(tmp_path):
    """One process for all of them, because most of the time is the import of torch."""
    script = tmp_path / "all.py"
    script.write_text(
        "import re, sys\n"
        "for page in sys.argv[1:]:\n"
        "    text = open(page, encoding='utf-8').read()\n"
        "    for block in re.findall(r'```python\\n(.*?)```', text, flags=re.DOTALL):\n"
        "        exec(compile(block, page, 'exec'), {'__name__': 'example'})\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script), *map(str, PAGES.values())],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_part_cannot_be_forgotten():
    with pytest.raises(TypeError, match="definition"):
        extend.metric("m", unit="", better=extend.LOWER)
    with pytest.raises(TypeError, match="positional argument"):
        extend.Format(bool)
    with pytest.raises(TypeError, match="a layout is a Layout"):
        extend.LAYOUTS.add("l", print)
    with pytest.raises(TypeError, match="needs a writer and the endings"):
        extend.Format(bool, print, "x", (".x",), writes=(".x",))
    with pytest.raises(TypeError, match="a tier is one of"):
        extend.Layout(print, "x", "everywhere")


def test_a_name_is_not_used_twice():
    with pytest.raises(extend.PartError, match=r"there is a metric lesions already, from .*delin"):
        extend.metric("lesions", unit="", better=extend.LOWER, definition="x")(lambda *_: 0.0)


def test_failing_code_of_a_part_is_one_sentence(tmp_path):
    def broken(tree, folder):
        raise ValueError("no idea")

    extend.LAYOUTS.add("broken", extend.Layout(broken, "x", "on request"))
    with (
        pytest.raises(
            extend.PartError, match=r"layout broken from .* failed \(ValueError: no idea"
        ),
        running(extend.LAYOUTS, "broken"),
    ):
        extend.LAYOUTS["broken"].find(None, tmp_path)

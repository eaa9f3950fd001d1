"""Every extension point has a how-to page, and the example of each page runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from delineate import extend

ROOT = Path(__file__).parents[2]
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

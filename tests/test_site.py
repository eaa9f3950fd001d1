"""The documentation site: it builds without a warning, loads nothing from other hosts, and has
every public name and command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import delineate
from delineate import extend
from delineate.cli import app
from delineate.formats.files import OWN

ROOT = Path(__file__).parents[1]
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict"]


def build(root: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BUILD, "--config-file", str(root / "mkdocs.yml"), "--site-dir", str(target)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "NOTEBOOKS": "unrun"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="the site needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="the site needs the extra docs")
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT, target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_the_site_loads_nothing_from_other_hosts(site):
    """Links may lead elsewhere; scripts, styles, fonts and pictures may not."""
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]*\bsrc=\"?(?:https?:)?//|"
        r"<link rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?(?:https?:)?//"
    )
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not loaded.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\"?https?:", style.read_text(encoding="utf-8")), style


def test_every_public_name_is_in_the_reference(site):
    for name, module in (("python", delineate), ("extensions", extend)):
        page = (site / "reference" / name / "index.html").read_text(encoding="utf-8")
        shown = set(re.findall(rf'<h3 id="{re.escape(module.__name__)}\.(\w+)"', page))
        assert shown >= set(module.__all__)


def test_every_command_and_option_is_in_the_reference(site):
    page = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")
    for name, command in get_command(app).commands.items():
        if not command.hidden:
            assert f">delineate {name}<" in page.replace("</code>", "<"), name
            for parameter in command.params:
                assert all(f"<code>{option}" in page for option in parameter.opts if "-" in option)


def test_every_format_and_error_is_in_the_reference(site):
    formats = (site / "reference" / "formats" / "index.html").read_text(encoding="utf-8")
    assert all(f"<td>{name}</td>" in formats for name in OWN)
    shown = (site / "reference" / "errors" / "index.html").read_text(encoding="utf-8")
    assert "├── UsageError" in shown


def test_a_broken_link_stops_the_build(site, tmp_path):
    """A small site with the same settings, without the generated pages."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    settings = re.sub(r"hooks:.*?\n\n|plugins:.*?\n\n(?=markdown)", "", settings, flags=re.DOTALL)
    (tmp_path / "mkdocs.yml").write_text(settings[: settings.index("\nnav:")])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[a](nowhere.md) [b](#nothing) [c](/absolute)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for target in ("'nowhere.md'", "'#nothing'", "'/absolute'"):
        assert target in done.stderr

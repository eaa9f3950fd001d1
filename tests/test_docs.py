"""The documentation is true: its commands run and exist, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from delineate import __version__
from delineate.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"```(\w+)\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(tmp_path):
    for language, text in blocks(ROOT / "docs" / "tutorials" / "first-model.md"):
        lines = (
            [text] if language == "python" else [line for line in text.splitlines() if line.strip()]
        )
        for line in lines:
            command = (
                [sys.executable, "-c", line]
                if language == "python"
                else [
                    sys.executable,
                    "-m",
                    *line.replace("delineate ", "delineate.cli ", 1).split(),
                ]
            )
            done = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "liver.nii.gz").is_file() and (tmp_path / "scores/scores.csv").is_file()
    assert (
        list((tmp_path / "out").glob("*.seg.dcm"))
        and (tmp_path / "organs.model.run/report.html").is_file()
    )


def test_every_verb_and_option_has_help():
    for name, command in get_command(app).commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_version_is_told():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"delineate {__version__}\n"


def test_the_readme_names_only_verbs_that_exist():
    verbs = set(get_command(app).commands)
    for path in PAGES:
        for language, text in blocks(path):
            if language == "sh":
                for verb in re.findall(r"^delineate (\w+)", text, flags=re.MULTILINE):
                    assert verb in verbs, f"{path.name}: {verb}"


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    """Links to pages, pictures and headings; links to other hosts are not fetched."""
    text = re.sub(r"`[^`\n]*`", "", path.read_text(encoding="utf-8"))
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if "://" not in target:
            page = path.parent / target if target else path
            assert page.exists(), target
            assert not anchor or anchor in anchors(page), f"{target}#{anchor}"

"""The documentation is true and complete: its commands exist, its links lead somewhere, and each
page states for whom it is. ``test_pages.py`` runs the code of the pages.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from delineate import __version__
from delineate.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_verb_and_option_has_help():
    for name, command in get_command(app).commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_version_is_told():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"delineate {__version__}\n"


def commands_of(path: Path) -> list[str]:
    """Every command of delineate on a page: in blocks and between backticks, on one line each."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    found = re.findall(r"^(?: {4})?delineate [^#\n]+", text, flags=re.MULTILINE)
    return [line.strip() for line in found] + re.findall(r"`(delineate [^`]+)`", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_only_commands_and_options_that_exist(path):
    group = get_command(app)
    for line in commands_of(path):
        words = re.findall(r"(?<=\s)(--?[a-z][\w-]*|[a-z]+(?:-[a-z]+)*)(?=[\s=]|$)", line)
        name = next((word for word in words if word in group.commands), None)
        known = [group, group.commands[name]] if name else [group]
        options = {
            option
            for one in known
            for parameter in one.params
            for option in (*parameter.opts, *parameter.secondary_opts, "-h", "--help")
        }
        assert name or words[0].startswith("-"), line
        assert {word for word in words if word.startswith("-")} <= options, line


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


def test_pages_named_in_the_code_exist():
    """Messages, docstrings and benchmarks that refer to a page."""
    for part in ("src", "benchmarks"):
        for path in (ROOT / part).rglob("*.py"):
            for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
                assert (ROOT / page).is_file(), f"{path.relative_to(ROOT)}: {page}"


@pytest.mark.parametrize("part", ["tutorials", "how-to", "concepts", "reference"])
def test_every_page_is_listed_and_states_for_whom_it_is(part):
    """In the navigation of the site, in the index of its part, and at its top."""
    folder = ROOT / "docs" / part
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    patterns = re.findall(rf"- {part}/(\S+\.md)", navigation)
    index = (folder / "index.md").read_text(encoding="utf-8")
    for path in folder.glob("*.md"):
        assert any(path.match(pattern) for pattern in patterns), f"{path.name}: not in mkdocs.yml"
        assert path.name == "index.md" or f"]({path.name})" in index, (
            f"{path.name}: not in the index"
        )
        start = path.read_text(encoding="utf-8").split("\n\n")[1]
        assert start.startswith("For "), f"{path.name}: states not for whom it is"


def test_the_comparison_with_the_tutorials_is_what_its_script_writes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    page = importlib.import_module("tutorials").page()
    assert (ROOT / "docs" / "tutorials" / "compared.md").read_text(encoding="utf-8") == page
    assert "not run yet" in page or (ROOT / "benchmarks/results/tutorials.json").exists()
    # Each row names the machine that trained it.
    kept = json.loads((ROOT / "benchmarks/results/tutorials.json").read_text(encoding="utf-8"))
    for system in kept["systems"].values():
        for found in system["variants"].values():
            assert f"| {found['mean']:.3f} " in page
            assert f" | {'; '.join(found['machines'])} |" in page


def test_decision_records_have_one_form():
    records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    index = (ROOT / "docs" / "decisions" / "index.md").read_text(encoding="utf-8")
    for number, path in enumerate(records, start=1):
        text = path.read_text(encoding="utf-8")
        assert path.name.startswith(f"{number:04d}-") and f"]({path.name})" in index
        assert re.match(
            rf"# {number}\. .+\n\n20\d\d-\d\d-\d\d\n\n\*\*Context\.\*\* .*"
            r"\*\*Decision\.\*\* .*\*\*Consequences\.\*\*\s",
            text,
            flags=re.DOTALL,
        ), path.name


def test_the_page_of_costs_is_that_of_the_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import cost_page

    kept = cost_page.PAGE.read_text(encoding="utf-8")
    assert kept == cost_page.page().rstrip() + "\n", "run benchmarks/cost_page.py"
    # Of a CT whose CPU seconds were measured, and a call on a quiet machine.
    engines = json.loads((cost_page.RESULTS / "engines.json").read_text())
    engines.pop("note", None)
    made = {"command": "python benchmarks/x.py", "commit": "abc", "machine": engines["machine"]}
    row = {"seconds": 90.0, "cpu_s": 120.0, "peak_mb": 1700.0, "read_bytes": 4e7}
    row |= {"written_bytes": 5e5}
    choices = {"default": row, "--overlap 0": row | {"cpu_s": 60.0}}
    cost = {**made, "scan": "S", "whole scan": "W", "choices": choices, "whole": {"4": row}}
    (tmp_path / "engines.json").write_text(json.dumps(engines))
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    (tmp_path / cost_page.EIGHT_BITS).parent.mkdir()
    bits = {"seconds": [0.2, 0.1], "precision_beside": "bf16", "machine": {"processor": "P"}}
    (tmp_path / f"{cost_page.EIGHT_BITS}.json").write_text(json.dumps(bits))
    monkeypatch.setattr(cost_page, "RESULTS", tmp_path)
    page = cost_page.page()
    for text in (
        "`predict` on W,",
        "(`python benchmarks/x.py`, commit abc):",
        "| 4 | 90 | 120 | 1.7 GB |",
        "CPU seconds are those of all threads.",
        "| `--overlap 0` | 60.0 | 50 % | 40 MB | 0.50 MB | 1.7 GB |",
        "50 % of the time of bf16 on P.",
        "| CPU | 33,333 core hours: 174 days of a node of 8 cores |",
        "| c, a scan on a node of 8 cores | 15.0 s |",
    ):
        assert text in page, (text, page)


def test_performance_pages_are_those_of_the_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import performance_page

    folders = [path for path in performance_page.RESULTS.iterdir() if path.is_dir()]
    for folder in folders:
        kept = (performance_page.PAGES / f"{folder.name}.md").read_text(encoding="utf-8")
        assert kept == performance_page.page(folder), "run benchmarks/performance_page.py"
    # Quartiles of runs and of ratios of the same turn, memory, commits, and what is missing.
    row = {"patch": "8x8x8", "batch": 2}
    row["ours"] = {"work_s": 2.0, "each_s": [1.0, 2.0, 3.0], "beyond_input_mb": 500}
    row["tuned"] = {"work_s": 4.0, "each_s": [4.0, 4.0, 4.0], "precision": "float32"}
    record = {
        "command": "python benchmarks/step_time.py",
        "commit": "abc",
        "machine": {"processor": "P", "cores": 2, "python": "3"},
        "absent": ["Some package"],
        "steps": [row],
    }
    (tmp_path / "step_time.json").write_text(json.dumps(record))
    page = performance_page.page(tmp_path)
    for text in (
        "`python benchmarks/step_time.py`, commit abc",
        "| 2.00 s (1.50 s to 2.50 s), 0.50 GB |",
        "nnU-Net's step tuned (float32, channels last): 4.00 s (4.00 s to 4.00 s)",
        "| **2.00** (1.67 to 3.00) |",
        "| – | – | Some package: not installed | – |",
        "## Not measured on this machine\n\n`start_up.py`",
    ):
        assert text in page, (text, page)

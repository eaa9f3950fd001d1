"""The files around the package: workflows, citation, releases, the description on an index."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import delineate
from delineate.extras import DISTRIBUTION
from tests import measured

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import coverage_limits  # noqa: E402
import release  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_complete(path):
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flow["name"] and flow["permissions"] == {"contents": "read"}
    assert flow[True]  # "on", which YAML reads as a truth value
    for job in flow["jobs"].values():
        assert job["runs-on"] and job["steps"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            # Actions of others are pinned to a version.
            assert "uses" not in step or re.fullmatch(r"[\w/.-]+@[\w/.-]+", step["uses"])


def test_the_checks_cover_every_system_and_python():
    flow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    matrix = flow["jobs"]["newest"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    stated = {
        line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)
    }
    assert stated <= set(matrix["python"])


def test_only_the_release_may_publish_and_has_no_password():
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in text and "password" not in text.replace("no password", "")


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issue_forms_are_complete(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text("utf-8"))
    assert form["name"] and form["description"]
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_citation_has_its_fields():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for field in ("cff-version", "message", "title", "authors", "version", "license"):
        assert citation[field]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert citation["license"] == PROJECT["license"]


def test_hooks_run_programs_of_the_lock():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for hook in hooks["repos"][0]["hooks"]:
        program = hook["entry"].split()[0].rpartition("/")[2]
        assert re.search(rf"^{program}==", lock, re.MULTILINE)


def test_one_version_everywhere():
    assert set(release.versions(ROOT).values()) == {delineate.__version__}
    assert importlib.metadata.version(DISTRIBUTION) == delineate.__version__


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout that can be released."""
    (tmp_path / "src/delineate").mkdir(parents=True)
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "src/delineate/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    path = tmp_path / "CHANGELOG.md"
    dated = re.sub(r"\((unreleased|\d[\d-]+)\)", "(2026-12-01)", path.read_text("utf-8"), count=1)
    path.write_text(dated, encoding="utf-8")
    return tmp_path


def test_a_release_needs_a_clean_tree_one_version_a_dated_changelog_and_a_new_tag(checkout):
    version = PROJECT["version"]
    assert release.problems(checkout, "", ["v0.0.1"]) == []
    assert release.problems(checkout, "", [f"v{version}"], f"v{version}") == []
    assert "not committed" in release.problems(checkout, " M a.py\n", [])[0]
    assert "exists" in release.problems(checkout, "", [f"v{version}"])[0]
    assert "the tag is v9" in release.problems(checkout, "", [], "v9")[0]
    changelog = checkout / "CHANGELOG.md"
    changelog.write_text(changelog.read_text("utf-8").replace("(2026-12-01)", "(unreleased)"))
    assert "no section" in release.problems(checkout, "", [])[0]
    citation = checkout / "CITATION.cff"
    citation.write_text(citation.read_text("utf-8").replace(version, "9.9"))
    assert "CITATION.cff has the version 9.9" in release.problems(checkout, "", [])[0]


def test_every_package_of_the_lock_has_hashes_and_torch_is_pinned():
    blocks = re.split(
        r"^(?=[\w.-]+==)", (ROOT / "requirements.lock").read_text("utf-8"), flags=re.MULTILINE
    )[1:]
    assert len(blocks) > 80 and all("--hash=sha256:" in block for block in blocks)
    assert re.search(r"^torch==\S+$", (ROOT / "requirements-torch.txt").read_text("utf-8"), re.M)


def test_links_of_the_description_work_on_an_index_page():
    """They are absolute, and those to files of the project lead to files that exist."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not re.findall(r"\]\((?!https://|#)", text)
    links = dict(re.findall(r"^\[(.+)\]: (\S+)$", text, flags=re.MULTILINE))
    used = set(re.findall(r"\]\[([^\]]+)\]", text))
    assert used == set(links)
    for url in links.values():
        place = re.fullmatch(rf"{PROJECT['urls']['Source']}/(?:blob|raw)/main/([^#]+)(#.+)?", url)
        assert place and (ROOT / place[1]).exists(), url


def test_too_little_coverage_is_reported_with_package_and_figure():
    files = {f"src/delineate/{package}/a.py": (96, 100) for package in coverage_limits.LIMITS}
    found = coverage_limits.by_package(files | {"/x/src/delineate/viewer/b.py": (60, 100)})
    assert coverage_limits.percent(found["delineate"].values()) == pytest.approx(444 / 5)
    assert coverage_limits.failures(found) == []
    found["formats"]["formats/c.py"] = (0, 5)
    del found["execution"]
    *_, worst, _, formats, execution = coverage_limits.failures(found)
    assert worst == "  formats/c.py: 5 of 5 not covered"
    assert formats == "formats: 91.43 % covered, at least 95 %"
    assert execution == "execution: nothing was measured, at least 95 %"


def test_the_measured_test_files_exist(monkeypatch, tmp_path):
    assert measured.listed()
    monkeypatch.setattr(measured, "LIST", tmp_path / "tests" / "measured.txt")
    measured.LIST.parent.mkdir()
    measured.LIST.write_text("# words\ntests/measured.txt\ntests/gone.py\n")
    with pytest.raises(pytest.UsageError, match=r"measured.txt: no such file: tests/gone.py"):
        measured.listed()

"""Check that a commit can be released, then tag it.

    python tools/release.py                    # before the tag: checks, then makes it
    python tools/release.py --of-tag v0.1.0    # of a tag: checks only

Pushing the tag starts the release workflow.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def versions(root: Path) -> dict[str, str]:
    """The version as each file states it; "" where it is not found."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    patterns = {
        "src/delineate/__init__.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## (\S+) \(",
    }
    found = {"pyproject.toml": str(project["version"])}
    for name, pattern in patterns.items():
        text = (root / name).read_text(encoding="utf-8")
        match = re.search(pattern, text, re.MULTILINE)
        found[name] = match[1] if match else ""
    return found


def problems(root: Path, changed: str, tags: list[str], of_tag: str = "") -> list[str]:
    """Why this commit cannot be released; [] if it can.

    Args:
        root: the checkout.
        changed: what ``git status --porcelain`` prints.
        tags: all tags.
        of_tag: the tag that is released; "" before there is one.
    """
    found, out = versions(root), []
    version = found["pyproject.toml"]
    out += [
        f"{name} has the version {other or 'nowhere'}, pyproject.toml has {version}"
        for name, other in found.items()
        if other != version
    ]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE):
        out.append(f"CHANGELOG.md has no section '## {version} (YEAR-MONTH-DAY)'")
    if of_tag and of_tag != f"v{version}":
        out.append(f"the tag is {of_tag}, the version {version}")
    if not of_tag and f"v{version}" in tags:
        out.append(f"the tag v{version} exists; raise the version")
    if not of_tag and changed.strip():
        out.append(f"there are changes that are not committed:\n{changed.rstrip()}")
    return out


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    of_tag = sys.argv[2] if sys.argv[1:2] == ["--of-tag"] else ""
    found = problems(ROOT, git("status", "--porcelain"), git("tag").split(), of_tag)
    if found:
        sys.exit("\n".join(["this commit cannot be released:", *found]))
    if not of_tag:
        tag = f"v{versions(ROOT)['pyproject.toml']}"
        git("tag", "--annotate", tag, "--message", f"Release {tag}")
        print(f"made the tag {tag}; `git push origin {tag}` publishes it")


if __name__ == "__main__":
    main()

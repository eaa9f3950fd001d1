"""No package of the lock has a licence that binds users of delineate."""

from __future__ import annotations

import importlib.metadata
import re
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PERMISSIVE = re.compile(
    r"0BSD|Apache|BSD|BSL-1\.0|CC0|\bISC|\bMIT|HPND|PSF|Python Software Foundation|Unlicense|Zlib",
    re.IGNORECASE,
)
BINDING = re.compile(r"GPL|General Public|\bMPL|Mozilla|\bEPL|CDDL|EUPL|SSPL", re.IGNORECASE)
# Packages whose licence binds those who change the package itself, and why that is accepted.
REVIEWED = {
    "certifi": "MPL 2.0 covers its own files, a list of certificates, which are used unchanged",
    "hypothesis": "MPL 2.0; runs tests, and is installed with the extra dev only",
    "tqdm": "MPL 2.0 covers some of its own files, which are used unchanged by dicom-anonymizer",
    "pathspec": "MPL 2.0; a requirement of mypy and MkDocs, with the extra dev only",
}


def stated_licence(metadata: Message) -> str:
    """The licence in a distribution's metadata: an SPDX expression, classifiers, or a text."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    return "; ".join(classifiers) or str(metadata.get("License") or "")[:100]


def problem_of(name: str, licence: str) -> str:
    """Why the licence is not accepted; "" if it is."""
    if BINDING.search(licence):
        lenient = not re.search(r"(?<!L)GPL|(?<!Lesser )General Public", licence)
        return "" if lenient and name in REVIEWED else f"{name}: {licence}"
    parts = re.split(r"\s+(?:AND|OR)\s+|; ", licence)
    known = all(PERMISSIVE.search(part) for part in parts)
    return "" if known else f"{name}: unknown licence {licence!r}"


def locked() -> list[str]:
    files = (ROOT / "requirements.lock", ROOT / "requirements-torch.txt")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [found[1] for line in lines if (found := re.match(r"([\w.-]+)==", line))]


def test_no_package_of_the_lock_binds_users():
    found, installed = [], 0
    for name in locked():
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        installed += 1
        found.append(problem_of(name.lower(), stated_licence(metadata)))  # type: ignore[arg-type]
    assert installed > 50
    assert not list(filter(None, found))


@pytest.mark.parametrize(
    ("name", "licence", "accepted"),
    [
        ("a", "MIT", True),
        ("a", "BSD-3-Clause AND 0BSD AND Zlib", True),
        ("a", "GPL-3.0-or-later", False),
        ("a", "GNU Affero General Public License v3", False),
        ("certifi", "GPLv3", False),
        ("a", "LGPL-3.0-or-later", False),
        ("a", "MPL-2.0", False),
        ("certifi", "Mozilla Public License 2.0 (MPL 2.0)", True),
        ("a", "MIT AND Proprietary", False),
        ("a", "", False),
    ],
)
def test_binding_and_unknown_licences_are_found(name, licence, accepted):
    assert (problem_of(name, licence) == "") == accepted
    stated = Message()
    stated["License-Expression"] = licence
    assert stated_licence(stated) == licence


def test_every_reviewed_package_is_in_the_lock():
    assert set(REVIEWED) <= {name.lower() for name in locked()}

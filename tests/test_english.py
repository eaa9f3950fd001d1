"""The language of the product is the plain English of the field: phrases that readers stumbled over
stay away, in help, messages, reports, documents, docstrings and comments.

The list is of phrases, each with what the field says instead; a new one is added when a reader is
stopped by it. Identifiers and keys of files are not prose and are not looked at.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from delineate.cli import app

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "delineate"
# Regular expression -> what to write instead.
BANNED = {
    r"\b(is|are|was|were|be|being|been) (told|said|hurt)\b": "is reported, printed, stated",
    r"\btold of\b|\btells of\b|\bsays? of\b|\bspeaks? of\b": "reports, states",
    r"\bwho asks\b|\bfor who\b|\bwhoever\b": "the caller; optional",
    r"\bby heart\b": "overfitted",
    r"\banew\b": "again, from scratch",
    r"\bmend(s|ed|ing)?\b": "repair",
    r"\bgrey values?\b": "intensities",
    r"\bmatrix units?\b": "AMX, tensor cores",
    r"\b\d+ wide\b": "base channels",
    r"\bst(ands?|ood) (on|in|at|there|beside|elsewhere|above|below|before|behind|already)\b": "is",
    r"\bbeside\b": "next to, compared with, in addition to",
    r"\b(is|are|be|was|were) taken (for|as) (a|an|the|CT|MR)\b": "treated as",
    r"\bhow (far|sure|often right)\b": "degree, confidence, accuracy",
    r"\b(largest|connected) pieces?\b|\bpieces? of surface\b": "connected component, surfel",
    r"\bwhose turn\b|\bits leave\b|\bits life\b": "next, shutdown, lifetime",
    r"\bthe house\b|\bhouse and its\b": "layout",
    r"\b(the|a|every|each|one) (verb|noun)s?\b": "command, core type",
    r"\b(made|make|makes|making) (\w+ )?ready\b": "preprocess, calibrate",
    r"\bcomes? on top\b": "is added",
    r"\bhears?\b": "receives",
    r"\bnothing of (it|its|the)\b|\bnone but\b|\bwhat of it\b": "a clause with a subject",
    r"\bgoing on with\b|\bgoes on (with|from|where)\b|\bgo on (with|from|where)\b": "continue",
    r"\bfor deviations?\b|\bunit deviation\b|\bmean and deviation\b": "standard deviation",
    r"\bwhat (was|is) taken for what\b": "confusion matrix",
}


def prose_of_python(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings with more than one word, without names of arguments and code, and
    of the comments.
    """
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            prose = re.sub(r"``[^`]*``|^ +[\w, ]+: ", "", node.value, flags=re.MULTILINE)
            yield node.lineno, re.sub(r"\s+", " ", prose)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose_of_page(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of a document or template, without code."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", "", line)


def sources() -> list[Path]:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    templates = [*SOURCE.rglob("*.jinja"), *SOURCE.rglob("*.html")]
    return [*sorted(SOURCE.rglob("*.py")), *sorted(pages), *sorted(templates)]


def breaches(path: Path) -> list[str]:
    prose = prose_of_python if path.suffix == ".py" else prose_of_page
    return [
        f"{path.name}:{line}: {found[0]!r}; write: {instead}"
        for line, text in prose(path)
        for phrase, instead in BANNED.items()
        if (found := re.search(phrase, text, re.IGNORECASE))
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_phrase_that_stops_a_reader(path):
    found = breaches(path)
    assert not found, "\n".join(found)


def test_help_has_no_such_phrase():
    for name, command in get_command(app).commands.items():
        for text in (command.help, *(getattr(p, "help", "") or "" for p in command.params)):
            for phrase in BANNED:
                assert not re.search(phrase, text or "", re.IGNORECASE), f"{name}: {text}"


@pytest.mark.parametrize(
    "text", ["files are told apart by names", "the label stands on the grid", "learnt by heart"]
)
def test_a_planted_phrase_is_found(tmp_path, text):
    (tmp_path / "a.py").write_text(f'def f():\n    """{text}."""\n    return 1  # plain words\n')
    (tmp_path / "a.md").write_text(f"```sh\n{text}\n```\n\n{text}\n")
    assert len(breaches(tmp_path / "a.py")) == 1
    assert [text.split(":")[1] for text in breaches(tmp_path / "a.md")] == ["5"]

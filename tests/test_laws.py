"""The laws of the house: who may import whom, what a start costs, and that every option is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "delineate"
LAYERS = ["core", "formats", "cohort", "ops", "nets", "metrics", "learn", "show", "viewer", "steps", "recipes", "serve", "api", "cli"]


def imports(path: Path) -> set[str]:
    """First package below delineate that the file imports, inside functions too."""
    package = ["delineate", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module or "").split(".")] if node.module else base
            names = [".".join([*full, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("delineate.") and name.split(".")[1] in LAYERS}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_only_run_down_the_list(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    if parts[0] not in LAYERS:
        return
    mine = LAYERS.index(parts[0])
    upward = {other for other in imports(path) if LAYERS.index(other) > mine}
    assert not upward, f"{path.name} imports {upward}, which stand above it"


def test_only_the_training_step_imports_learn():
    users = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if "learn" in imports(p) and "learn" not in p.parts}
    assert users == {"steps/train.py"}


def test_import_is_quick_and_loads_no_torch():
    code = "import delineate, sys; delineate.Volume; delineate.Grid; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 3  # generous for a loaded machine; benchmarks measure it


def test_plans_and_bundles_name_no_code():
    for name in ("plan", "bundle"):
        text = (SOURCE / "core" / f"{name}.py").read_text()
        assert "importlib" not in text and "eval(" not in text and "pickle." not in text


def test_no_pickle_is_loaded_anywhere():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        if path.name == "nnunet.py":  # nnU-Net's checkpoints are pickles: of them, only data is read
            assert text.count("torch.load(") == text.count("weights_only=True") == 1
            text = text.replace("torch.load(", "")
        assert "import pickle" not in text and "torch.load(" not in text and "allow_pickle=True" not in text, path

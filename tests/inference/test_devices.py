"""Devices: a wrong word, or a GPU that is not here, is one sentence before any work; and nothing
needs a Unix.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tests.calls import run
from tests.plans import small_plan
from tests.scans import scan, write_cohort

import delineate as dl
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import UsageError
from delineate.inference.devices import choose_device, refuse_unknown
from delineate.inference.engine import fast_dtype
from delineate.networks.build import build, weights_of


def test_words_that_name_a_device():
    assert choose_device("cpu").type == "cpu" and choose_device().type in ("cpu", "cuda")
    for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:13", "mps"):
        refuse_unknown(name)
    for name in ("mps:0", "banana", "", "CUDA", "cuda:", "cuda:x", "cpu:0", "xpu"):
        with pytest.raises(UsageError, match="allowed are auto, cpu, cuda, cuda:N or mps"):
            choose_device(name)


def test_a_gpu_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(
            UsageError, match=f"device {name} was requested, but no CUDA GPU was found"
        ):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"only 1 CUDA GPU"):
        choose_device("cuda:1")
    assert str(choose_device("cuda:0")) == "cuda:0"


def test_the_gpu_of_a_mac_is_used_on_request(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"device mps was requested, but .* no Metal GPU"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps").type == "mps" and choose_device("auto").type == "cpu"
    assert fast_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("device", ["mps", "banana", "cuda"])
def test_every_command_says_so_before_any_work(tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = small_plan()
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(tmp_path / "m.model")
    write_cohort(tmp_path / "cohort", 3)
    for words in (
        ["predict", tmp_path / "m.model", scan(tmp_path / "a.nii.gz"), "-o", tmp_path / "out"],
        ["train", tmp_path / "cohort", "-o", tmp_path / "new.model", "--epochs", "1"],
        ["plan", tmp_path / "cohort", "-o", tmp_path / "plan.json"],
        ["benchmark", "-o", tmp_path / "figures.json"],
        ["demo", "-o", tmp_path / "demo"],
    ):
        code, printed = run(*words, "--device", device)
        assert (
            code == 2 and device in printed and "auto" in printed and "Traceback" not in printed
        ), printed
        assert len([line for line in printed.splitlines() if line.strip()]) == 1, printed
    assert {p.name for p in tmp_path.iterdir()} == {"m.model", "cohort", "a.nii.gz"}
    if device == "banana":  # whether there is a GPU is asked when one is needed
        with pytest.raises(UsageError, match=device):
            dl.load(tmp_path / "m.model", device=device)


def test_every_module_loads_without_what_only_unix_has():
    """As on Windows, where these modules do not exist."""
    code = """
import importlib, os, pkgutil, sys
import psutil  # it has a module of its own for each system
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
import delineate
names = [m.name for m in pkgutil.walk_packages(delineate.__path__, "delineate.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
from delineate.commands.predict import peak_memory_mb
sys.platform = "win32"
assert peak_memory_mb() > 10
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and int(done.stdout) > 100, done.stderr

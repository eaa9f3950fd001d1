"""The recipe of the container: pinned, without rights, and it builds where a builder exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from delineate.cli import app

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "many-machines.md"
RECIPE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
# A base that is on this machine, and further arguments of the builder, where no registry is.
BASE, FURTHER = "DELINEATE_BASE_IMAGE", "DELINEATE_BUILD_OPTIONS"


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / name).read_text(encoding="utf-8")))


def test_the_container_has_the_versions_that_are_tested():
    image, tested = pins("requirements-image.lock"), pins("requirements.lock")
    assert image.items() <= tested.items() and "numpy" in image
    assert not {"pytest", "mypy", "mkdocs"} & set(image)


def test_the_recipe_is_pinned_and_without_rights():
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", RECIPE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", RECIPE, re.MULTILINE)) == {"${BASE}"}
    assert "--require-hashes --no-deps -r requirements-image.lock" in RECIPE
    last = RECIPE.rpartition("FROM ")[2]
    assert "\nUSER delineate\n" in last and "pip" not in last


def test_only_what_the_image_needs_is_sent_to_the_builder():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE)
    needed = {name for line in copied for name in line.split()}
    assert "*" in lines and {line[1:] for line in lines if line.startswith("!")} == needed
    assert all((ROOT / name).exists() for name in needed)


def test_jobs_of_kubernetes_are_complete_and_call_what_exists():
    text = PAGE.read_text(encoding="utf-8")
    blocks = dict(re.findall(r'```yaml title="(.*?)"\n(.*?)```', text, re.DOTALL))
    job, ray = (yaml.safe_load(blocks[name]) for name in ("job.yaml", "rayjob.yaml"))
    assert (job["kind"], ray["kind"]) == ("Job", "RayJob")
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    pods = [spec, ray["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]]
    for pod in pods:
        volumes = {one["name"] for one in pod["volumes"]}
        assert {m["name"] for c in pod["containers"] for m in c["volumeMounts"]} == volumes
    shard = container["args"][0].removeprefix("exec ").replace("$((JOB_COMPLETION_INDEX + 1))", "7")
    assert shard.endswith(f"/{job['spec']['completions']}")
    predict = get_command(app).commands["predict"]
    by_ssh = yaml.safe_load(blocks["machines.yaml"])
    assert by_ssh["provider"]["type"] == "local"
    assert by_ssh["min_workers"] == len(by_ssh["provider"]["worker_ips"])
    (asked,) = re.findall(r'ray exec machines.yaml "cd /shared && (.*)"', text)
    for words in (shard, ray["spec"]["entrypoint"], asked):
        program, command, *arguments = shlex.split(words)
        assert (program, command) == ("delineate", "predict")
        predict.make_context(command, arguments)  # refuses unknown options


@pytest.mark.rounds
def test_it_builds_and_predicts(tmp_path):
    builder = next((name for name in ("docker", "podman", "buildah") if works(name)), None)
    if builder is None:
        pytest.skip("docker, podman or buildah is not installed, or does not run here")
    base = ("--build-arg", f"BASE={os.environ[BASE]}") if BASE in os.environ else ()
    image = "delineate-test"
    further = shlex.split(os.environ.get(FURTHER, ""))
    built = run(builder, "build", *further, *base, "-t", image, ROOT)
    if built.returncode and BASE not in os.environ and "@sha256" in built.stderr:
        pytest.skip("the base image cannot be fetched here")
    assert built.returncode == 0, built.stderr[-2000:]
    inside = (
        "set -e; cd /tmp; id -u; delineate phantom cohort --patients 3 --format nifti; "
        "delineate train cohort -o organs.model --budget 40s || test $? = 3; "
        "delineate predict organs.model cohort/images/phantom_001.nii.gz -o out; "
        "delineate convert out/phantom_001.nii.gz mask.nrrd; ls out mask.nrrd"
    )
    if builder == "buildah":
        made = run(builder, "from", image).stdout.strip()
        try:
            done = run(builder, "run", "--isolation", "chroot", made, "--", "sh", "-c", inside)
        finally:
            run(builder, "rm", made)
    else:
        done = run(
            *(builder, "run", "--rm", "--network", "none", "--entrypoint", "sh", image),
            *("-c", inside),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10001") and "phantom_001.nii.gz" in done.stdout


def works(builder: str) -> bool:
    return shutil.which(builder) is not None and run(builder, "images").returncode == 0


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)

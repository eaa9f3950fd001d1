"""The Slurm scripts of the how-to pages, run by a real Slurm of two nodes on this machine.

    python -m benchmarks.faults.slurm FOLDER [--ray BIN]

Needs root, and Debian's slurmctld, slurmd, slurm-client and munge. Each node is a network namespace
of its own with a name of its own; they see no other network. The scripts are those of the pages,
with fewer tasks (``SMALLER``), and it is checked that

    - ``segment.sh``: an array of shards writes the masks of one call; with one task interrupted by
      SIGUSR1, as before the end of its time, and another one requeued, submitted again;
    - ``train_nodes.sh``: a training on both nodes, which is requeued in between, has the losses of
      one that was not disturbed on one;
    - ``segment_ray.sh``: the masks of one call again, by Ray on both nodes; only with ``--ray``, a
      folder with the programs of an environment that has Ray.

GPUs are counted by Slurm, but there are none: everything runs on CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.faults.training import CASES, tiny_plan
from tests.scans import mask, scan, write_cohort

from delineate.core.inputs import read_json_lines

ROOT = Path(__file__).parents[2]
NODES = {"node1": "10.99.0.1", "node2": "10.99.0.2"}
HEAD = next(iter(NODES))
ALLOWED = 1e-4  # relative difference of losses
MANY = 40  # scans to segment
TIMES = (4, 4, 4)  # how much larger they are than those of the training
STEPS, EPOCHS = 4, 10  # of a training
# Pages, and what is made smaller in their scripts.
SMALLER = {
    "segment.sh": ("many-machines", {"1-100": "1-4", "--cpus-per-task=8": "--cpus-per-task=1"}),
    "segment_ray.sh": ("many-machines", {"--nodes=4": "--nodes=2"}),
    "train_nodes.sh": (
        "cluster",
        {
            "--nodes=4 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8": (
                "--nodes=2 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=1"
            ),
            "--budget 11h --devices 8 --nodes 4": (
                f"--plan plan.json --epochs {EPOCHS} --devices 1 --nodes 2 --device cpu"
            ),
        },
    ),
}
CONF = """ClusterName=test
SlurmctldHost={head}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=20
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
"""


def main() -> None:
    """Run all, and end with 1 if something differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ray", type=Path, help="folder of programs with Ray")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is ended
    folder = given.folder.resolve()
    make_inputs(folder)
    wrong = 0
    with cluster(folder / "slurm") as slurm:
        checks = [segmented, trained]
        if given.ray:
            slurm.use(given.ray.absolute())
            checks = [segmented_by_ray]
        for check in checks:
            faults = check(slurm, folder)
            print(f"{check.__name__}: {'; '.join(faults) or 'as it must be'}", flush=True)
            wrong += len(faults)
    sys.exit(int(wrong > 0))


def make_inputs(folder: Path) -> None:
    """In ``train`` SCANS with masks, plan.json, and the model of one training; in ``segment`` SCANS
    without, that model, and in ``alone`` the masks of one call. What is there already is kept.
    """
    train, segment = folder / "train", folder / "segment"
    if (segment / "alone" / "predictions.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for n in range(MANY):
        truth = np.kron(mask(n), np.ones(TIMES))
        noise = np.random.default_rng(n).normal(100, 20, truth.shape)
        scan(segment / "SCANS" / f"s{n:02d}.nii.gz", (noise + 60 * truth).astype(np.float32))
    plan = tiny_plan(write_cohort(train / "SCANS", CASES))
    made = json.loads(plan.read_text())
    made["schedule"] |= {"steps_per_epoch": STEPS, "epochs": EPOCHS}
    plan.write_text(json.dumps(made))
    words = (
        *(["train", "SCANS", "-o", "liver.model", "--plan", "plan.json", "--device", "cpu"]),
        *("--epochs", str(EPOCHS)),
    )
    delineate = (sys.executable, "-m", "delineate")
    # So few steps make no model that is of use, which is code 3.
    subprocess.run([*delineate, *words], cwd=train, stdout=subprocess.DEVNULL)
    shutil.copy(train / "liver.model", segment)
    words = ["predict", "liver.model", "SCANS", "-o", "alone", "--device", "cpu"]
    subprocess.run([*delineate, *words], cwd=segment, check=True, stdout=subprocess.DEVNULL)


# ---- what is checked ----


def segmented(slurm: Slurm, folder: Path) -> list[str]:
    """An array of shards, disturbed and submitted again."""
    here = folder / "segment"
    shutil.rmtree(here / "out", ignore_errors=True)
    script = slurm.script("segment.sh", here)
    job = slurm.submit(script)
    slurm.wait_for(lambda: any((here / "out").glob("*.nii.gz")))
    # One task as before the end of its time, one as when its node is needed for something else.
    slurm.ask("scancel", "--batch", "--signal=USR1", f"{job}_1")
    slurm.ask("scontrol", "requeue", f"{job}_2")
    slurm.wait_for_end(job)
    faults = []
    if "stopped;" not in (here / f"slurm-{job}_1.out").read_text():
        faults.append("the signal stopped nothing")
    if len(list((here / "out").glob("*.nii.gz"))) == MANY:
        faults.append("the signal came after the last scan")
    slurm.wait_for_end(slurm.submit(script))
    return faults + differences(here / "alone", here / "out")


def segmented_by_ray(slurm: Slurm, folder: Path) -> list[str]:
    """One job, in which Ray divides the scans."""
    here = folder / "segment"
    shutil.rmtree(here / "out", ignore_errors=True)
    job = slurm.submit(slurm.script("segment_ray.sh", here))
    slurm.wait_for_end(job)
    output = (here / f"slurm-{job}.out").read_text()
    nodes = set(re.findall(r"Local node IP: (\S+)", output))
    faults = [] if nodes == set(NODES.values()) else [f"Ray ran on {', '.join(sorted(nodes))}"]
    return faults + differences(here / "alone", here / "out")


def trained(slurm: Slurm, folder: Path) -> list[str]:
    """A training on two nodes, requeued in between."""
    here = folder / "train"
    run = here / "organs.model.run" / "fold_0"
    shutil.rmtree(run.parent, ignore_errors=True)
    (here / "organs.model").unlink(missing_ok=True)
    job = slurm.submit(slurm.script("train_nodes.sh", here))
    slurm.wait_for(lambda: (run / "last.safetensors").is_file())
    slurm.ask("scontrol", "requeue", str(job))
    slurm.wait_for_end(job)
    output = (here / f"slurm-{job}.out").read_text()
    if not (here / "organs.model").is_file():
        return [f"no model: {output[-500:]}"]
    one, two = (losses(path) for path in (here / "liver.model.run" / "fold_0", run))
    if one.keys() != two.keys():
        return [f"{len(two)} steps, expected {len(one)}"]
    most = max(abs(two[step] / one[step] - 1) for step in one)
    print(f"    largest difference of a loss in {len(one)} steps: {most:.1e}")
    return [f"a loss differs by {most:.1e}"] if most > ALLOWED else []


def losses(run: Path) -> dict[int, float]:
    """Step -> loss."""
    return {line["step"]: line["loss"] for line in read_json_lines(run / "log.jsonl")}


def differences(expected: Path, found: Path) -> list[str]:
    """What differs between the masks of two folders."""
    want, have = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in one.glob("*.nii.gz")}
        for one in (expected, found)
    )
    missing, unequal = (
        want.keys() - have.keys(),
        {n for n in want & have.keys() if want[n] != have[n]},
    )
    return [
        *([f"missing: {', '.join(sorted(missing))}"] if missing else []),
        *([f"other voxels: {', '.join(sorted(unequal))}"] if unequal else []),
    ]


# ---- the cluster ----


class Slurm:
    """A cluster that runs in ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.use(Path(sys.executable).parent)

    def use(self, programs: Path) -> None:
        """Use the programs of a folder, and delineate of this checkout by its Python."""
        self.programs = programs
        command = self.folder / "bin" / "delineate"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {programs}/python -m delineate "$@"\n')
        command.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of programs of the cluster."""
        path = f"{self.folder}/bin:{self.programs}:{os.environ['PATH']}"
        found = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}
        return os.environ | found | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}

    def on(self, node: str, *command: str, apart: bool = False) -> list[str]:
        """The words that run a command on a node, under its name; ``apart`` it sees only processes
        of its own.
        """
        own = self.folder / f"tmp.{node}"  # Ray's files, which real machines do not share
        own.mkdir(exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        inside = (
            f"hostname {node} && mount --bind {self.folder}/hosts /etc/hosts && "
            f"mount --bind {own} /tmp/ray && exec "
        )
        words = f'{inside}nsenter --net=/run/netns/dl-{node} "$@"'
        more = ("--pid", "--fork", "--kill-child", "--mount-proc") if apart else ()
        return ["unshare", "--uts", "--mount", *more, "sh", "-c", words, "sh", *command]

    def run(self, node: str, *command: str, seconds: float = 60) -> str:
        """The output of a command on a node."""
        done = subprocess.run(
            self.on(node, *command),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, *command: str) -> str:
        """The output of a command of Slurm."""
        return self.run(HEAD, *command)

    def script(self, name: str, folder: Path) -> Path:
        """A script of a page, made smaller, in ``folder``."""
        page, smaller = SMALLER[name]
        text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
        found = re.search(rf'```bash title="{re.escape(name)}"\n(.*?)```', text, flags=re.DOTALL)
        assert found is not None, f"no {name} in {page}.md"
        script = found[1]
        for old, new in smaller.items():
            assert old in script, f"no {old!r} in {name}"
            script = script.replace(old, new)
        path = folder / name
        path.write_text(script)
        return path

    def submit(self, script: Path) -> int:
        """The number of the job."""
        where = ("--chdir", str(script.parent))
        return int(self.ask("sbatch", "--parsable", *where, str(script)).split(";")[0])

    def wait_for(self, is_there, seconds: float = 300) -> None:  # type: ignore[no-untyped-def]
        """Wait until a function is true."""
        until = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds:.0f} s; see {self.folder}")
            time.sleep(0.1)

    def wait_for_end(self, job: int) -> None:
        """Wait until all tasks of a job have ended; one that was requeued starts at once."""

        def is_done() -> bool:
            states = self.ask("squeue", "--noheader", "--format=%A %t", "--jobs", str(job))
            for line in states.splitlines():
                task, state = line.split()
                if state == "PD":
                    with contextlib.suppress(RuntimeError):  # it has begun
                        self.ask("scontrol", "update", f"JobId={task}", "StartTime=now")
            return not states.strip()

        with contextlib.suppress(RuntimeError):  # Slurm has forgotten it
            self.wait_for(is_done)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Slurm]:
    """Two nodes in network namespaces, of which the first one is also the controller."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "munge").mkdir(parents=True, mode=0o700)
    (folder / "state").mkdir()
    slurm = Slurm(folder)
    write_settings(folder)
    munge = folder / "munge"
    started: list[Path] = []
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        connect(list(NODES.items()))
        files = (f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed"))
        slurm.run(HEAD, "munged", "--force", f"--socket={munge / 'socket'}", *files)
        started.append(munge / "pid")
        slurm.run(HEAD, "slurmctld", "-f", str(folder / "slurm.conf"))
        started.append(folder / "controller.pid")
        for node in NODES:
            command = ("slurmd", "-D", "-f", str(folder / "slurm.conf"), "-N", node)
            words = slurm.on(node, *command, apart=True)
            nodes.append(subprocess.Popen(words, env=slurm.environment, stderr=subprocess.DEVNULL))
        slurm.wait_for(lambda: slurm.ask("sinfo", "-h", "-o", "%t").split() == ["idle"], 60)
        yield slurm
    finally:
        for process in nodes:
            process.kill()
            process.wait()
        for pid in reversed(started):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid.read_text()), 15)
        time.sleep(1)
        for node in NODES:
            subprocess.run(["ip", "netns", "del", f"dl-{node}"], capture_output=True)


def write_settings(folder: Path) -> None:
    """The files of settings of a cluster."""
    lines = [CONF.format(folder=folder, head=HEAD, address=NODES[HEAD])]
    # More cores than there are, so that the scripts need not be changed for it.
    lines += [
        f"NodeName={node} NodeAddr={address} CPUs=16 Gres=gpu:8 RealMemory=4000 State=UNKNOWN\n"
        for node, address in NODES.items()
    ]
    lines.append(f"PartitionName=main Nodes={','.join(NODES)} Default=YES State=UP\n")
    (folder / "slurm.conf").write_text("".join(lines))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    for n in range(8):
        (folder / f"gpu{n}").touch()
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    hosts = ["127.0.0.1 localhost", *(f"{address} {node}" for node, address in NODES.items())]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)


def connect(nodes: Sequence[tuple[str, str]]) -> None:
    """A network namespace for each of two nodes, and a cable between them."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    for node, _ in nodes:
        ip("netns", "add", f"dl-{node}")
        ip("-n", f"dl-{node}", "link", "set", "lo", "up")
    (one, _), (other, _) = nodes
    ends = ("peer", "name", "cable", "netns", f"dl-{other}")
    ip("link", "add", "cable", "netns", f"dl-{one}", "type", "veth", *ends)
    for node, address in nodes:
        ip("-n", f"dl-{node}", "addr", "add", f"{address}/24", "dev", "cable")
        ip("-n", f"dl-{node}", "link", "set", "cable", "up")
        # Leads nowhere; programs find their own address by it.
        ip("-n", f"dl-{node}", "route", "add", "default", "dev", "cable")


if __name__ == "__main__":
    main()

"""Golden files of schema 1, by delineate at 02bdc41: PYTHONPATH=OLD/src python make.py OUT."""

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

OUT = Path(sys.argv[1]).resolve()
shutil.rmtree(OUT, ignore_errors=True)
OUT.mkdir(parents=True)
WORK = OUT.parent / "work"
shutil.rmtree(WORK, ignore_errors=True)
WORK.mkdir()
rng = np.random.default_rng(0)
AFF = np.diag([-1.0, 1.5, 2.0, 1])
for n in range(5):
    label = np.zeros((16, 14, 12), np.uint8)
    label[3:8, 4:9, 2 + n % 3 : 7] = 1
    label[9:13, 5:10, 3:9] = 2
    image = np.rint(rng.normal(100, 20, label.shape) + 60 * label).astype(np.int16)
    for part, a in (("images", image), ("labels", label)):
        (OUT / "cohort" / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(a, AFF), OUT / "cohort" / part / f"c{n}.nii.gz")
from delineate.core.request import Request
from delineate.nets.build import build, weights_of
from delineate.steps.predict import predict
from delineate.steps.train import train

from delineate.core.bundle import Bundle, Member
from delineate.core.labels import LabelSet
from delineate.core.plan import (
    Augmentation,
    Channel,
    Network,
    Normalisation,
    Plan,
    Schedule,
    Structure,
)

labels = LabelSet.from_names({1: "left part", 2: "right part"})
plan = Plan(
    channels=(Channel(name="image", normalise=Normalisation(kind="robust")),),
    structures=tuple(Structure(**d) for d in labels.to_json()),
    spacing_mm=(1.0, 1.5, 2.0),
    patch=(16, 16, 16),
    network=Network(
        dims=3, channels=1, classes=3, widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2
    ),
    schedule=Schedule(epochs=4, steps_per_epoch=3),
    augmentation=Augmentation(mirror=(0,)),
)
(OUT / "plan.json").write_text(plan.to_json())
bundle = Bundle(
    plan, (Member("fold_0", weights_of(build(plan.network, 0)), 0),), {"layout": "parallel-folders"}
)
bundle.save(OUT / "small.model")
cohort = WORK / "cohort"
shutil.copytree(OUT / "cohort", cohort)
split = WORK / "split.json"
split.write_text(json.dumps({"train": ["c0", "c1", "c2"], "val": ["c3"], "test": ["c4"]}))
request = Request(
    data=str(cohort), epochs=4, plan=str(OUT / "plan.json"), split=str(split), device="cpu"
)
shutil.copy(OUT / "plan.json", WORK / "plan.json")
request = Request(
    data=str(cohort), epochs=4, plan=str(WORK / "plan.json"), split=str(split), device="cpu"
)


class Stop(Exception):
    pass


def stop(stage, done, total, note):
    if stage.startswith("train") and done >= 0.5:
        raise Stop


model = WORK / "m.model"
try:
    train(request, model, progress=stop)
    raise SystemExit("was not stopped")
except Stop:
    pass
killed = WORK / "killed"
killed.mkdir()
shutil.copy(model, killed / "m.model")
shutil.copytree(WORK / "m.model.run", killed / "m.model.run")
train(request, model)
done = Bundle.load(model)


def pack(src, dst):
    shutil.copytree(src, dst, ignore=shutil.ignore_patterns("*.graphs"))
    for p in dst.rglob("*"):
        if p.is_file() and p.suffix in (".json", ".jsonl", ".csv", ".html"):
            p.write_text(p.read_text().replace(str(WORK), "@ROOT@"))


pack(killed, OUT / "killed")
fin = WORK / "finished"
fin.mkdir()
shutil.copy(model, fin / "m.model")
shutil.copytree(WORK / "m.model.run", fin / "m.model.run")
shutil.rmtree(fin / "m.model.run" / "store")
for junk in ("pictures", "montages"):
    for d in fin.rglob(junk):
        shutil.rmtree(d)
for p in fin.rglob("report.html"):
    p.unlink()
pack(fin, OUT / "finished")
(OUT / "split.json").write_text(split.read_text())
predict(
    OUT / "small.model",
    [cohort / "images" / "c4.nii.gz"],
    WORK / "pred",
    device="cpu",
    backend="torch",
    precision="float32",
)
shutil.copy(WORK / "pred" / "c4.nii.gz", OUT / "c4_small.nii.gz")
from delineate.core.bundle import weights_sha256

exp = {
    "commit": "02bdc41",
    "small_id": bundle.id,
    "finished_id": done.id,
    "killed_id": Bundle.load(killed / "m.model").id,
    "weights_sha256": weights_sha256(done.members[0].weights),
    "plan_keys": sorted(json.loads(plan.to_json())),
}
(OUT / "expected.json").write_text(json.dumps(exp, indent=1))
print(exp)

"""What a scientist writes: one scan, several libraries, a table, pictures and a report. It runs in
a folder with a model, its run, a scan and a mask, and is checked by mypy and pyright.
"""

import nibabel
import numpy as np
import SimpleITK

import delineate as dl

model: dl.Model = dl.load("liver.model", device="cpu")
scan: dl.Volume = dl.read("ct.nii.gz")
prediction: dl.Prediction = model.predict(scan, mirror=False)
mask = prediction["left part"]
volume_ml: float = float(mask.sum()) * float(np.prod(prediction.spacing_mm)) / 1000
assert abs(volume_ml - prediction.volumes_ml["left part"]) < 1e-6
intensities = np.asarray(scan)[mask]
again: dl.Prediction = dl.predict(model, nibabel.load("ct.nii.gz"), seed=1)
assert np.array_equal(again.numpy(), prediction.numpy())
itk: SimpleITK.Image = prediction.to_sitk()
back: dl.Volume = dl.read(itk)
assert back.shape == prediction.shape
prediction.to_nibabel().to_filename("mine.nii.gz")
found = dl.evaluate(prediction, (back.numpy(), prediction.affine), surface="none")
scores: dl.Scores = found.scores
dice: float = scores.mean("dice")
assert dice == 1.0
rows: int = len(scores.to_frame().query("metric == 'dice'"))
scan.plot(prediction.volume).savefig("planes.png")
run = dl.Run("liver.model.run")
losses: list[float] = [float(record["loss"]) for record in run.log]
page: str = run.report("page.html").read_text(encoding="utf-8")
cohort = dl.Cohort.find("cohort").split(0.6, 0.2, 0.2, by="patient")
names: list[str] = [case.id for case in cohort.where("test")]
budget = dl.TrainOptions(budget_s=600, device="cpu")

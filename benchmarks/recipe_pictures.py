"""Draws the pictures of the recipes' pages from the files that ``train_recipe.py --keep FOLDER``
kept.

    python benchmarks/recipe_pictures.py FOLDER... --out ../docs/images/recipes

For phantom scans, the picture is the one with source, truth and prediction side by side that the
training drew. Real scans may not be redistributed by this project, so for them only the predicted
structures are drawn, without any intensities of the scan.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import nibabel as nib
import numpy as np
from matplotlib import pyplot as plt


def side_by_side(run: Path, out: Path) -> None:
    """Copy the picture of the case whose Dice is closest to the median."""
    for part in ("test", "validation"):
        scores = run / part / "scores.json"
        if scores.is_file():
            rows = [
                r
                for r in json.loads(scores.read_text())["rows"]
                if r["metric"] == "dice" and r["value"] is not None
            ]
            for row in sorted(
                rows, key=lambda r: abs(r["value"] - float(np.median([q["value"] for q in rows])))
            ):
                picture = run / part / "pictures" / f"{row['case']}.png"
                if picture.is_file():
                    shutil.copyfile(picture, out)
                    return


def structures(
    prediction: Path, labels: list[dict[str, Any]], out: Path, dice: dict[str, float]
) -> None:
    """Draw three planes through the centre of a label map, and the Dice of each structure."""
    image = nib.as_closest_canonical(nib.load(prediction))
    array, spacing = (
        np.asarray(image.dataobj).astype(int),
        np.array(image.header.get_zooms()[:3], float),
    )
    table = np.zeros((max(int(array.max()), *(b["value"] for b in labels)) + 1, 3))
    for label in labels:
        table[label["value"]] = np.array(label["colour"]) / 255
    # Planes go through the median voxel and are cropped to the structures with a margin.
    filled = np.array(np.nonzero(array))
    middle, low, high = np.median(filled, axis=1).astype(int), filled.min(1) - 5, filled.max(1) + 6
    box = tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))
    figure, axes = plt.subplots(
        1,
        4 if dice else 3,
        figsize=(15 if dice else 11, 4.4),
        width_ratios=[1, 1, 1, 1.5] if dice else None,
    )
    for axis, (plane, name) in zip(axes, enumerate(("sagittal", "coronal", "axial")), strict=False):
        a, b = (n for n in range(3) if n != plane)
        shown = np.take(array, middle[plane], axis=plane)[box[a], box[b]]
        axis.imshow(
            np.where(shown[..., None] > 0, table[shown], 0.08).transpose(1, 0, 2),
            origin="lower",
            aspect=spacing[b] / spacing[a],
        )
        if a == 0:
            axis.invert_xaxis()  # the patient's right is on the left of the picture
        axis.set_title(name, fontsize=10)
        axis.axis("off")
    if dice:
        names = sorted(dice, key=lambda n: dice[n])
        axes[3].barh(
            range(len(names)),
            [dice[n] for n in names],
            color=[table[next(b["value"] for b in labels if b["name"] == n)] for n in names],
        )
        axes[3].set_yticks(range(len(names)), names, fontsize=6 if len(names) > 12 else 9)
        axes[3].set_xlim(0, 1)
        axes[3].set_xlabel("Dice, mean over held-out cases")
    figure.tight_layout()
    figure.savefig(out, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "recipes"
    )
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for run in sorted(
        run
        for folder in a.folders
        for run in folder.glob("*.model.run")
        if (run / "card.json").is_file()
    ):
        name = run.name.removesuffix(".model.run")
        target = a.out / f"{name.replace(' ', '-')}.png"
        card, plan = (
            json.loads((run / "card.json").read_text()),
            json.loads((run / "plan.json").read_text()),
        )
        if "phantom" in card["data"] or "chaos-mr" in card["data"]:
            side_by_side(run, target)
        elif predictions := sorted((run / "test" / "predictions").glob("*.nii.gz")):
            structures(
                predictions[0],
                plan["structures"],
                target,
                {k: v for k, v in card["scores"]["dice"].items() if v is not None},
            )


if __name__ == "__main__":
    main()

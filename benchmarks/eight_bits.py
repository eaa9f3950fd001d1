"""INT8 inference of a trained network on real scans: loss of accuracy and gain of time, as measured
by `quantise`.

    python benchmarks/eight_bits.py [--data ../shared/data] [--scans 40]
    python benchmarks/eight_bits.py --model MODEL --inputs SCANS... [--truth MASKS] --name NAME

Without a model, nnU-Net's own trained hippocampus fold is imported and run without mirroring. Eight
of the scans are used for calibration; Dice and seconds are measured on the others. INT8 masks are
compared with those of the standard engine (bf16 if the processor supports it), and both are
compared with the truth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from delineate.commands.options import QuantiseOptions
from delineate.commands.quantise import quantise
from delineate.core.bundle import Bundle
from delineate.interop.nnunet import read_bundle
from measure import DATA, keep
from nnunet_peer import TRAINED


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--inputs", type=Path, nargs="+")
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--name", default="hippocampus")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, inputs, truth = a.model, a.inputs, a.truth
        if model is None:
            model = Path(folder) / "nnunet.model"
            bundle = read_bundle(a.data / "nnunet_hippocampus" / TRAINED)
            plain = bundle.plan.replace(
                inference={**bundle.plan.inference.model_dump(), "mirror": ()}
            )
            Bundle(plain, bundle.members).save(model)
            inputs, truth = (
                sorted((a.data / "hippocampus" / "imagesTr").glob("*.nii.gz"))[: a.scans],
                a.data / "hippocampus" / "labelsTr",
            )
        done = quantise(
            model, inputs, Path(folder) / "int8.model", QuantiseOptions(truth=truth), say=print
        )
    cost = {key: value for key, value in done.cost.items() if key != "machine"}
    keep(
        f"eight_bits_{a.name}",
        {
            "name": a.name,
            "precision_beside": "bf16" if done.cost["machine"]["matrix_units"] else "float32",
            **cost,
        },
    )


if __name__ == "__main__":
    main()

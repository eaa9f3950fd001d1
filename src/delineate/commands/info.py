"""Info: what a file, a folder of scans, a model or a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.bundle import Bundle, weights_sha256
from ..core.inputs import read_json_if_any
from ..evaluation.training_verdict import Verdict
from ..formats import files
from .options import InfoOptions, reads_images
from .runs import is_run, summarise


@reads_images
def info(path: str | Path, options: InfoOptions = InfoOptions()) -> dict[str, Any]:
    """Describe ``path``, in values that JSON can hold.

    Returns:
        Of a scan its format, shape, spacing, orientation, dtype and unit; of a DICOM folder its
        series and other objects; of a DICOM segmentation or structure set its structures; of a
        model its structures, channels, network, members and card; of a run its state, steps, Dice
        and size on disk, its request and its plan's reasons.

    Raises:
        InputError: there is nothing that can be read.
    """
    if Bundle.is_bundle(path):
        return _of_model(Bundle.load(path))
    return _of_run(Path(path)) if is_run(path) else files.describe(path)


def _of_run(folder: Path) -> dict[str, Any]:
    found, plan = summarise(folder), read_json_if_any(folder / "plan.json")
    return {
        "kind": "delineate run",
        **found.to_json(),
        "verdict": found.verdict.words,
        "request": read_json_if_any(folder / "request.json"),
        "reasons": plan.get("reasons", {}) if isinstance(plan, dict) else {},
    }


def _of_model(bundle: Bundle) -> dict[str, Any]:
    plan = bundle.plan
    widths = plan.network.widths
    return {
        "kind": "delineate model",
        "id": bundle.id,
        "verdict": Verdict.from_json(bundle.card.get("verdict")).words,
        "structures": {label.value: label.name for label in bundle.labels},
        "channels": [c.name for c in plan.channels],
        "network": f"{plan.dims}-D {plan.network.kind}, {widths[0]} to {widths[-1]} channels",
        "spacing_mm": plan.spacing_mm,
        "patch": plan.patch,
        "members": [
            {
                "name": m.name,
                "fold": m.fold,
                "weight": m.weight,
                "parameters": sum(int(a.size) for a in m.weights.values()),
                "weights_sha256": weights_sha256(m.weights),
            }
            for m in bundle.members
        ],
        "card": {
            key: value
            for key, value in bundle.card.items()
            if key not in ("verdict", "plausibility")
        },
    }

"""A metric."""

from delineate import extend


@extend.metric(
    "volume_ratio",
    unit="",
    better=extend.NO_JUDGEMENT,
    definition="Voxels of the prediction divided by voxels of the truth.",
)
def volume_ratio(prediction, truth, spacing_mm):
    return prediction.sum() / truth.sum() if truth.any() else float("nan")

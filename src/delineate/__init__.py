"""delineate: from a folder of scans with masks to a validated, deployable segmentation model, and
back.

    import delineate as dl
    model = dl.load("liver.model")
    prediction = model.predict(dl.read("CT/"))
    prediction.save("liver.nii.gz")

Names are loaded when first used, so that ``import delineate`` costs next to nothing and never loads
torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "load",
    "read",
    "write",
    "Grid",
    "Volume",
    "LabelSet",
    "Manifest",
    "Plan",
    "Bundle",
    "Scores",
    "DelineateError",
]

_HOME = {
    "load": "api",
    "read": "api",
    "write": "api",
    "Grid": "core.grid",
    "Volume": "core.volume",
    "LabelSet": "core.labels",
    "Manifest": "core.manifest",
    "Plan": "core.plan",
    "Bundle": "core.bundle",
    "Scores": "core.scores",
    "DelineateError": "core.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'delineate' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"delineate.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""delineate: from a folder of scans with masks to a validated, deployable segmentation model, and
back.

    import delineate as dl
    model = dl.load("liver.model")
    prediction = model.predict(dl.read("CT/"))
    prediction.save("liver.nii.gz")

Names are loaded at their first use, so that ``import delineate`` is quick and never loads torch.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import ImageLike, Model, Prediction, Volume, load, read, write
    from .core.bundle import Bundle
    from .core.errors import DelineateError
    from .core.grid import Grid
    from .core.labels import LabelSet
    from .core.manifest import Manifest
    from .core.plan import Plan
    from .core.scores import Scores
else:
    # Name -> the module that defines it.
    _HOME = {
        **dict.fromkeys(
            ("ImageLike", "Model", "Prediction", "Volume", "load", "read", "write"), "api"
        ),
        "Bundle": "core.bundle",
        "DelineateError": "core.errors",
        "Grid": "core.grid",
        "LabelSet": "core.labels",
        "Manifest": "core.manifest",
        "Plan": "core.plan",
        "Scores": "core.scores",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'delineate' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"delineate.{_HOME[name]}"), name)


__all__ = [
    "Bundle",
    "DelineateError",
    "Grid",
    "ImageLike",
    "LabelSet",
    "Manifest",
    "Model",
    "Plan",
    "Prediction",
    "Scores",
    "Volume",
    "load",
    "read",
    "write",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

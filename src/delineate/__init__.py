"""delineate: from a folder of scans with masks to a validated, deployable segmentation model, and
back.

    import delineate as dl
    run = dl.train("cohort/", "liver.model", budget_s=600)
    prediction = dl.predict(run.model, "CT/")
    prediction.save("liver.nii.gz")

Names are loaded at their first use, so that ``import delineate`` is quick and never loads torch.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers read it as true; to import ``typing`` needs 20 ms
if TYPE_CHECKING:
    from . import extend
    from .api.check_report import CheckReport
    from .api.cohort import Cohort
    from .api.cohort import Cohort as Manifest
    from .api.functions import (
        check,
        compare,
        download,
        evaluate,
        export_slices,
        merge_slices,
        plan,
        predict,
        read,
        report,
        train,
        view,
        write,
    )
    from .api.model import Model, load
    from .api.prediction import Prediction
    from .api.run import Run
    from .api.volume import ImageLike, Volume
    from .commands.options import (
        CheckOptions,
        CompareOptions,
        DownloadOptions,
        EvaluateOptions,
        ExportSlicesOptions,
        MergeSlicesOptions,
        PlanOptions,
        PredictOptions,
        ReportOptions,
        TrainOptions,
        ViewOptions,
    )
    from .core.bundle import Bundle
    from .core.errors import DelineateError
    from .core.grid import Grid
    from .core.labels import LabelSet
    from .core.plan import Plan
    from .core.scores import Scores
else:
    # Name -> the module that defines it.
    _HOME = {
        **dict.fromkeys(
            (
                "check",
                "compare",
                "download",
                "evaluate",
                "export_slices",
                "merge_slices",
                "plan",
                "predict",
                "read",
                "report",
                "train",
                "view",
                "write",
            ),
            "api.functions",
        ),
        "CheckReport": "api.check_report",
        "Cohort": "api.cohort",
        "Model": "api.model",
        "load": "api.model",
        "Prediction": "api.prediction",
        "Run": "api.run",
        "ImageLike": "api.volume",
        "Volume": "api.volume",
        **dict.fromkeys(
            (
                "CheckOptions",
                "CompareOptions",
                "DownloadOptions",
                "EvaluateOptions",
                "ExportSlicesOptions",
                "MergeSlicesOptions",
                "PlanOptions",
                "PredictOptions",
                "ReportOptions",
                "TrainOptions",
                "ViewOptions",
            ),
            "commands.options",
        ),
        "Bundle": "core.bundle",
        "DelineateError": "core.errors",
        "Grid": "core.grid",
        "LabelSet": "core.labels",
        "Plan": "core.plan",
        "Scores": "core.scores",
        "Manifest": "api.cohort",
        "extend": "extend",
    }
    _OTHER_NAMES = {"Manifest": "Cohort"}  # earlier name -> name

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'delineate' has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f"delineate.{_HOME[name]}")
        return module if name == "extend" else getattr(module, _OTHER_NAMES.get(name, name))


__all__ = [
    "Bundle",
    "CheckOptions",
    "CheckReport",
    "Cohort",
    "CompareOptions",
    "DelineateError",
    "DownloadOptions",
    "EvaluateOptions",
    "ExportSlicesOptions",
    "Grid",
    "ImageLike",
    "LabelSet",
    "Manifest",
    "MergeSlicesOptions",
    "Model",
    "Plan",
    "PlanOptions",
    "PredictOptions",
    "Prediction",
    "ReportOptions",
    "Run",
    "Scores",
    "TrainOptions",
    "ViewOptions",
    "Volume",
    "check",
    "compare",
    "download",
    "evaluate",
    "export_slices",
    "extend",
    "load",
    "merge_slices",
    "plan",
    "predict",
    "read",
    "report",
    "train",
    "view",
    "write",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

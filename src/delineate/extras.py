"""Optional packages: what each extra of the distribution installs, and the refusal without it.

The core reads, checks, converts, evaluates and reports; everything else is an extra. A command
asks for its extra before any work, so that a missing package costs no time.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence

from .core.errors import UsageError, missing_sentence

DISTRIBUTION = "delineate-imaging"  # the name in package indexes; the import name is delineate
# OpenVINO computes where it is built for the processor, else torch.
PREDICTS = "openvino" if platform.machine().lower() in ("x86_64", "amd64") else "torch"
# Extra -> the packages, by import name, that the code of this extra imports.
EXTRAS = {
    "predict": (PREDICTS,),
    "torch": ("torch",),
    "train": ("torch", "lightning_fabric", "blosc2"),
    "dicom": (*("highdicom", "pynetdicom", "dicomweb_client", "jpeg_ls", "openjpeg", "gdcm"),),
    "itk": ("SimpleITK",),
    "hdf5": ("h5py",),
    "tensorboard": ("torch", "tensorboard"),
    "cluster": ("ray", "fsspec", "s3fs", "pyarrow"),
}


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def require_extra(extra: str, what: str, only: Sequence[str] = ()) -> None:
    """Check that the packages of an extra are installed; imports none of them.

    Args:
        extra: a key of ``EXTRAS``.
        what: what needs them, the subject of the error's sentence.
        only: the packages of the extra that are needed; () is all.

    Raises:
        UsageError: a package is missing; the sentence has the command that installs it.
    """
    missing = [name for name in only or EXTRAS[extra] if not is_installed(name)]
    if missing:
        raise UsageError(missing_sentence(what, missing, f'"{DISTRIBUTION}[{extra}]"'))


def require_package(name: str, what: str) -> None:
    """Check that a package that no extra installs is installed; see ``require_extra``.

    Raises:
        UsageError: it is not.
    """
    if not is_installed(name):
        raise UsageError(missing_sentence(what, [name], name))

"""Importing: a network that another program trained becomes a model like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.bundle import Bundle
from ..core.errors import UsageError
from ..core.outputs import Originals
from ..core.progress import Say, unsaid

KINDS = ("nnunet",)


def import_model(
    kind: str,
    folder: str | Path,
    out: str | Path,
    *,
    checkpoint: str = "checkpoint_final.pth",
    folds: Sequence[int] = (),
    say: Say = unsaid,
) -> Bundle:
    """Write the model that ``folder`` describes to ``out``.

    Args:
        kind: whose it is, one of ``KINDS``; "nnunet" is a results folder of nnU-Net v2 (see
            ``interop.nnunet``).
        checkpoint, folds: which of nnU-Net's files; all folds where empty.

    Returns:
        The bundle as written.

    Raises:
        UsageError: an unknown kind, or a choice that the folder does not have.
        InputError: the folder, or a file in it, cannot be read.
        BundleError: something in it has no counterpart here, or is not data.
        OutputError: ``out`` cannot be written, or is one of the files that are read; what stood
            there is unchanged.
    """
    if kind not in KINDS:
        raise UsageError(f"models can be imported from {', '.join(KINDS)}, found {kind!r}")
    from ..interop import nnunet

    Originals([folder], lambda path, folder: path.suffix in (".json", ".pth", ".pkl")).refuse([out])
    bundle = nnunet.read_bundle(folder, checkpoint=checkpoint, folds=folds, say=say)
    bundle.save(out)
    return bundle

"""Import: convert a model that another framework trained into a bundle."""

from __future__ import annotations

from pathlib import Path

from ..core.bundle import Bundle, graphs_beside, refuse_foreign
from ..core.errors import UsageError
from ..core.outputs import Originals
from ..core.progress import Say, unsaid
from ..extras import require_extra
from .options import ImportOptions

KINDS = ("nnunet",)


def import_model(
    kind: str,
    folder: str | Path,
    out: str | Path,
    options: ImportOptions = ImportOptions(),
    *,
    say: Say = unsaid,
) -> Bundle:
    """Write the model that ``folder`` describes to ``out``, and its compiled networks next to it.

    Args:
        kind: the source framework, one of ``KINDS``; "nnunet" reads a results folder of nnU-Net v2
            (see ``interop.nnunet``).
        folder: its files.
        out: the bundle to write.
        options: nnU-Net's files to use.
        say: see ``core.progress``.

    Returns:
        The bundle as written.

    Raises:
        UsageError: an unknown kind, or a fold or checkpoint that the folder does not have.
        InputError: the folder, or a file in it, cannot be read.
        BundleError: a setting has no counterpart here, or a file holds more than data.
        OutputError: ``out`` cannot be written, or is one of the files that are read; an existing
            file is unchanged.
    """
    if kind not in KINDS:
        raise UsageError(f"models can be imported from {', '.join(KINDS)}, found {kind!r}")
    require_extra("torch", "import")
    from ..inference.engine import keep_graphs, with_topology
    from ..interop import nnunet

    Originals([folder], lambda path, folder: path.suffix in (".json", ".pth", ".pkl")).refuse([out])
    chosen = dict(vars(options))
    overwrite = chosen.pop("overwrite")
    refuse_foreign(out, overwrite)  # before the networks are read
    bundle = with_topology(nnunet.read_bundle(folder, **chosen, say=say))
    bundle.save(out, overwrite)
    keep_graphs(bundle, graphs_beside(out))
    return bundle

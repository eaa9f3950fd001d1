"""Cohort: the cases of a data set for use in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ..commands.options import CohortOptions, found_by
from ..core import atomic
from ..core import manifest as core
from .keywords import CohortKeywords
from .volume import Volume

if TYPE_CHECKING:
    from ..core.plan import Plan
    from .patches import PatchDataset


class Cohort(core.Manifest):
    """The cases of a data set, with channels, structures, patients and splits; see
    ``core.manifest.Manifest`` for its fields.

    >>> cohort = Cohort.find("cohort")
    >>> cohort
    Cohort(5 cases of 5 patients: image; left part, right part)
    >>> [case.id for case in cohort][:2]
    ['c0', 'c1']
    >>> scan, mask = cohort.read(cohort.cases[0])
    >>> scan.spacing_mm == mask.spacing_mm
    True
    """

    @classmethod
    def of(cls, manifest: core.Manifest) -> Cohort:
        """The same cohort with the methods of this class.

        >>> cohort = Cohort.find("cohort")
        >>> Cohort.of(cohort) is cohort
        True
        """
        if isinstance(manifest, cls):
            return manifest
        return cls(**vars(manifest))

    @classmethod
    def find(cls, folder: str | Path, **keywords: Unpack[CohortKeywords]) -> Cohort:
        """Find the cases of a folder, without opening them; ``delineate.check`` examines them too.

        Args:
            folder: scans with or without masks, in any layout (see ``docs/reference/layouts.md``),
                or a manifest.
            keywords: the fields of ``CohortOptions``.

        Raises:
            InputError, LayoutError, LabelError: no cohort can be made of ``folder``.

        >>> len(Cohort.find("cohort", layout="parallel-folders"))
        5
        """
        from ..cohorts.discovery.layouts import find

        return cls.of(find(folder, **found_by(CohortOptions(**keywords))))

    def __repr__(self) -> str:
        structures = ", ".join(self.labels.names) or "no structures"
        return (
            f"Cohort({len(self)} cases of {len(self.patients)} patients: "
            f"{', '.join(self.channels)}; {structures})"
        )

    def read(self, case: core.Case) -> tuple[Volume, Volume | None]:
        """The scan of a case, (C, I, J, K), and its reference mask on the same grid with the
        cohort's label values; None without a mask.

        Raises:
            InputError, GeometryError, LabelError: they cannot be read, or do not fit together.

        >>> cohort = Cohort.find("cohort")
        >>> scan, mask = cohort.read(cohort.named("c0"))
        >>> scan.shape, mask.shape
        ((1, 16, 14, 12), (16, 14, 12))
        """
        from ..cohorts.reading import read_image, read_label

        image = read_image(case, self)
        label = read_label(case, self, image.grid) if case.label else None
        return Volume.of(image), None if label is None else Volume.of(label)

    def save(self, path: str | Path) -> None:
        """Write the cohort with its splits as a manifest (JSON Lines), which every command accepts
        as data, and ``Cohort.load`` reads.

        Raises:
            OutputError: it cannot be written.

        >>> Cohort.find("cohort").split(0.6, 0.2, 0.2).save("split.jsonl")
        >>> len(Cohort.load("split.jsonl").where("train"))
        3
        """
        atomic.write_text(Path(path), self.to_jsonl())

    def to_torch(
        self,
        patch: tuple[int, int, int] | None = None,
        *,
        plan: Plan | None = None,
        augment: bool = True,
        store: str | Path | None = None,
        seed: int = 0,
    ) -> PatchDataset:
        """The cases with masks as a dataset of PyTorch, read, preprocessed, cut into patches and
        augmented as ``delineate.train`` does it.

        Args:
            patch: shape of a sample in voxels of the prepared grid; None uses the plan's.
            plan: resolution, normalisation, sampling and augmentation; None derives it from the
                cases of this cohort. Give the validation cases the plan of the training dataset.
            augment: False draws patches without any change.
            store: folder of the prepared cases, which a later call uses again; None uses a
                temporary one, deleted with the dataset.
            seed: of patches and augmentation.

        Raises:
            UsageError: packages of training are not installed, or an impossible patch.
            LabelError: no case has a mask.
            DelineateError: the error of the first case that cannot be prepared.

        >>> data = Cohort.find("cohort").to_torch(patch=(16, 16, 8))
        >>> image, label = data[0]
        >>> tuple(image.shape), image.dtype, tuple(label.shape), label.dtype
        ((1, 16, 16, 8), torch.float32, (16, 16, 8), torch.int64)
        """
        from ..extras import require_extra

        require_extra("train", "to_torch")
        from .patches import PatchDataset

        return PatchDataset(self, patch, plan=plan, augment=augment, store=store, seed=seed)

"""Words for the sides of a split in the names of folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ...core.manifest import Case, Split

# Folder name, or prefix or suffix of one -> split.
SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "va": "val",
    "test": "test",
    "testing": "test",
    "ts": "test",
    "te": "test",
}
# Words of a name: "TrainingData" has two.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# Shorter words have other meanings inside a name.
_SHORTEST = 3


def words_of(name: str) -> list[str]:
    """The words and numbers of a name, in small letters.

    >>> words_of("TrainData"), words_of("Oasis_Labels2")
    (['train', 'data'], ['oasis', 'labels', '2'])
    """
    return [word.lower() for word in _WORD.findall(name)]


def split_in(name: str) -> Split:
    """The split that a folder name states, as a whole or in one of its words; None without one.

    >>> split_in("TrainingData"), split_in("Training Batch 1"), split_in("va"), split_in("HGG")
    ('train', 'train', 'val', None)
    """
    if name.lower() in SPLITS:
        return SPLITS[name.lower()]
    words = [word for word in words_of(name) if len(word) >= _SHORTEST]
    found = {SPLITS[word] for word in words if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def without_split(name: str) -> str:
    """The name without its words for a split, and without separators at its ends.

    >>> without_split("Training Batch 1"), without_split("stage1_train"), without_split("test")
    ('Batch 1', 'stage1', '')
    """
    if name.lower() in SPLITS:
        return ""

    def kept(word: re.Match[str]) -> str:
        is_split = len(word[0]) >= _SHORTEST and word[0].lower() in SPLITS
        return "" if is_split else word[0]

    return _WORD.sub(kept, name).strip(" _-.")


def with_free_training(cases: Iterable[Case]) -> list[Case]:
    """The cases, those for training without a split unless some cases with a label are for
    validation: they are divided into folds later.
    """
    cases = list(cases)
    if any(case.split == "val" and case.label for case in cases):
        return cases
    return [replace(case, split=None) if case.split == "train" else case for case in cases]

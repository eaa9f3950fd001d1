"""What a model's card records about the cases that it learned from: the Dice of its training and
validation cases, to be shown next to that of test cases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

# Part of a card, which has an entry for each network -> its key of the Dice of each structure.
SIDES = {"training": "train_dice", "validation": "val_dice"}


def learned_dice(card: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The Dice of each structure on either side, pooled over the prepared cases, mean over the
    networks; a side that is not recorded is left out.

    >>> learned_dice({"training": {"fold_0": {"train_dice": {"liver": 0.5}}}, "validation": {}})
    {'training': {'liver': 0.5}}
    """
    found = {}
    for side, key in SIDES.items():
        values: dict[str, list[float]] = defaultdict(list)
        for network in (card.get(side) or {}).values():
            for name, dice in (network.get(key) or {}).items():
                if dice is not None:
                    values[name].append(dice)
        if values:
            found[side] = {name: float(np.mean(each)) for name, each in values.items()}
    return found

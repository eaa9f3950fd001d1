"""Recipes: plans that reproduce a known system, one file each, chosen with ``train --recipe NAME``.

A recipe is a ``planning.rules.Recipe``: a planner with the system's own setting, and the structures
it delineates. It goes the same road as every other plan. ``--budget`` shrinks network and patch to
the time (``scaling``); without it the setting is the original's.
"""

from __future__ import annotations

import difflib

from ...core.errors import UsageError
from ..rules import Recipe
from . import brain_quicknat, brats_vnet, liver_ct_unet2d, liver_ct_unet3d, liver_mr_unet2d

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for module in (liver_ct_unet3d, brain_quicknat, liver_mr_unet2d, liver_ct_unet2d, brats_vnet)
    for recipe in module.RECIPES
}


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        raise UsageError(
            f"no recipe is called {name!r}{f'; did you mean {near[0]}?' if near else ''}; there "
            f"are {', '.join(RECIPES)}"
        )
    return RECIPES[name]

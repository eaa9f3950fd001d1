"""Recipes: plans that reproduce a known system, one file each, chosen with ``train --recipe NAME``.

A recipe is a ``planning.rules.Recipe``: a planner with the settings of the original system, and the
structures it segments. Its plan is used like any other plan. ``--budget`` reduces network and patch
to what the time allows (``scaling``); without it the settings are those of the original.
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
    """The recipe with this name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        raise UsageError(
            f"unknown recipe {name!r}{f' (did you mean {near[0]}?)' if near else ''}; available "
            f"recipes: {', '.join(RECIPES)}"
        )
    return RECIPES[name]

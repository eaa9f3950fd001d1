"""Recipes: list the published systems that ``train --recipe`` reproduces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..extend.registers import RECIPES

if TYPE_CHECKING:
    from rich.table import Table


def recipes() -> list[dict[str, str]]:
    """Name and summary of each recipe."""
    return [{"name": one.name, "summary": one.summary} for one in RECIPES.values()]


def table() -> Table:
    """The same for a terminal."""
    from rich.table import Table

    shown = Table("name", "summary")
    for one in recipes():
        shown.add_row(one["name"], one["summary"])
    return shown

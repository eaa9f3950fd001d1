"""Folders of images next to folders of labels: roles of folders, their entries, and the layout."""

from . import layout

__all__ = ["layout"]

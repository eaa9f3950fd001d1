"""A first description of an unknown folder, which is written only if it finds the cases."""

from .writing import DraftedDescription, draft

__all__ = ["DraftedDescription", "draft"]

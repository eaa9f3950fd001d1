"""Layouts of 2-D pictures."""

from . import annotated, collections, eyes, voc

__all__ = ["annotated", "collections", "eyes", "voc"]

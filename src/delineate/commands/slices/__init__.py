"""Slices of volumes out of a cohort, and back to volumes."""

"""Checks of a cohort: what is wrong with it and what can be repaired."""

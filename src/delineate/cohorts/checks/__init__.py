"""Examining a cohort: what is wrong, what can be repaired."""

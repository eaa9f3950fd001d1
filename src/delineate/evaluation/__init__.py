"""Evaluation of predictions against truths, and comparison of runs."""

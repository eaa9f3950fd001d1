"""Predictions against truths, and runs against each other."""

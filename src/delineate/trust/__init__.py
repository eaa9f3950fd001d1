"""Reliability of a prediction: calibration of its probabilities, agreement of its samples."""

"""Training: from a folder of scans to a model."""

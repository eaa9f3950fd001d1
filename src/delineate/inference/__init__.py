"""Inference: apply a model to scans."""

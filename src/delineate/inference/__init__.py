"""A model on scans."""

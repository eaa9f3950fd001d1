"""Import of models from other frameworks."""

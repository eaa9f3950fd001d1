"""A synthetic abdominal cohort."""

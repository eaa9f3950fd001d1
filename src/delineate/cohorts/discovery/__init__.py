"""Finding the cases of a cohort."""

"""Find the cases of a cohort."""

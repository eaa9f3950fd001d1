"""What a cohort and a machine make of a training."""

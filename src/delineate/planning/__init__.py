"""From a cohort and a machine to a training plan."""

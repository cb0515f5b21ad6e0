"""Questions that take several trainings."""

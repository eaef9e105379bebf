"""Studies: what transfers and why, as many small trainings, or as questions asked of finished models."""

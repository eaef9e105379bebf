"""Studies: many small trainings that together answer one question about a network and somebody's data."""

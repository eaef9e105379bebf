"""Studies of transfer: one file per question that is asked of finished models."""

"""The instruction tuning that every arm shares, after its mid-training."""

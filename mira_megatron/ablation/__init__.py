"""What came of the arms: their held-out loss beside each other, and what they keep."""

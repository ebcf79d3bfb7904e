"""Records to ratings."""

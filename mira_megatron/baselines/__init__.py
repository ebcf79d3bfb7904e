"""Scores that selections are usually compared with: random order, DSIR, DataMan, perplexity."""

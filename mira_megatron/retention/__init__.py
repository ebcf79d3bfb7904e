"""Record scores to keep masks under a token budget."""

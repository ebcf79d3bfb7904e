"""Which sources belong together."""

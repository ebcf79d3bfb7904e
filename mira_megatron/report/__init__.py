"""Summaries people read."""

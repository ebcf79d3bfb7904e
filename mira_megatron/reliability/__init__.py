"""Ratings to one score per record."""

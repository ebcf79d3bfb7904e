"""Checkpoints beside each other, and beside published numbers."""

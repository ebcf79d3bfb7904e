"""Spreading a stage over processes and machines."""

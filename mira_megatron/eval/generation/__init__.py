"""Answers to benchmarks, asked of endpoints."""

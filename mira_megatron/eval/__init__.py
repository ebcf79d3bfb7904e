"""Evaluation: code benchmarks, graded without trusting what a model wrote."""

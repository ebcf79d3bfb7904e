"""Source-aware data selection for Megatron / NeMo mid-training (MIRA, arXiv 2605.30288)."""

__version__ = "0.1.0"

"""Training on megatron-core."""

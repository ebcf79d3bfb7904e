"""Records to Megatron token datasets, and selections over them."""

"""Which records a training reads, and when: replayed from what Megatron itself builds."""

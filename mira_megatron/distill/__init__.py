"""From a teacher's ratings to a scorer: SFT data, training, export."""

"""How sure a score is: pass@k, intervals, resampling by cluster, paired tests, power."""

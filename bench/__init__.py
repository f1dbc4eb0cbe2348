"""The schedule of a fair comparison, the trials, and their records."""

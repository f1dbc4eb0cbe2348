"""Measuring: experiments, the schedule of a fair comparison, the trials, and a run from beginning to end."""

"""From the trials of a run directory to estimates with intervals, tables, figures and the report."""

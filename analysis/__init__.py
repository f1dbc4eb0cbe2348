"""Turns the trials of a run directory into estimates with intervals, tables, figures and the report."""

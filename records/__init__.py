"""The contents of a run directory, and one table of metrics. bench/ writes the directory, and analysis/ reads it.

run.json         the circumstances of the run (records/run.py)
trials.jsonl     one trial per line, in the order in which they ran (records/trials.py)
profiles/*.gz    where the CPU time of a trial went (records/profile.py)
walks/*.csv      on which CPU each step of a connection happened (records/walk.py)
"""

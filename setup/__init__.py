"""Set a machine up for the lab, and describe the machine: packages, virtual environment, container, file ownership."""

"""Making a machine able to run the lab, and saying what it is: packages, environment, container, ownership."""

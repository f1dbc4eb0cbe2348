"""What a CPU profile shows: the list that the slides print, flame graphs, and files for speedscope.app."""

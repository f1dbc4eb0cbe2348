"""A model that predicts connections per second by cores, and is judged by what it was not fitted to."""

"""A model that predicts connections per second by cores. It is judged by points that it was not fitted to."""

"""Checks of a raw data set: what must be mended before training, and what should be looked at."""

"""One file per annotation format that can be turned into a raw data set."""

"""pycuda on the host: see driver.py."""

"""Choosing with feedback: what was tried is paid for, and the rest is not known. Numpy and scipy only."""

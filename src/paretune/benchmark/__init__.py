"""Studies: what to compare, planned, run to the end whatever happens, and timed. No module here imports torch."""

"""Stages as they are executed: in populations, with checkpoints and seals, for a study or for one call of `train`."""

"""Objective weights from the inner products of the objectives' gradients. Numpy and scipy only."""

"""The best policy there is for a preference: what it reaches, enumerated or estimated. Numpy and scipy only."""

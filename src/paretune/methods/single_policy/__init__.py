"""One policy per preference: the trade-off is fixed before training."""

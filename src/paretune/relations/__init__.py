"""How objectives relate: in rewards, in gradients and in outcomes, from arrays. Numpy and scipy only."""

"""A few experts: a preference combines them."""

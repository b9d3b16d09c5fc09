"""Which part of a policy what it does comes from."""

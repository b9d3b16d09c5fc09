"""A set of policies: a preference selects a member, none are merged."""

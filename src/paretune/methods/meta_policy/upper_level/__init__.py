"""The upper level of a meta-policy: rules and searches that weigh experts for a preference."""

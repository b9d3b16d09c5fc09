"""The upper level of a meta-policy: rules, searches and bandits that weigh experts for a preference."""

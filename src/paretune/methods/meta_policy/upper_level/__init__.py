"""The upper level of a meta-policy: what learns to weigh experts that stay as they are."""

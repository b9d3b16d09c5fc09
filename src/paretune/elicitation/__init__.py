"""Which preference somebody has, inferred from choices between two options at a time."""

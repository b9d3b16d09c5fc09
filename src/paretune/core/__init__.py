"""What every room shares: nouns, contracts, errors, preferences, seeds and the ledger. Imports no other room."""

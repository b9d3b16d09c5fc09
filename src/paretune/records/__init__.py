"""What a run writes and how it is read back. Numpy, JSON and Parquet only; no model is ever loaded here."""

"""Networks and the on-disk model format."""

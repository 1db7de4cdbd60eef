"""Parquet schemas, reader, writer and the DuckDB catalogue."""

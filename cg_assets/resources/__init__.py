"""What assets need from outside: the Parquet store, MLflow tracking, a compute device."""

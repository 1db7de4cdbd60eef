"""MLflow: connection, models, champions and the lineage of models."""

"""What a user does with an installation: run, refresh, doctor, prune, lineage, pages, demo."""

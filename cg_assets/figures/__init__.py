"""Every figure of the project, as PNG bytes."""

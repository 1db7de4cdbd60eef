"""The asset graph, one module per stage: read, call one science function, write, report metadata."""

"""The report of a system as one HTML file that works without a network: page, lineage graph, view of the beads."""

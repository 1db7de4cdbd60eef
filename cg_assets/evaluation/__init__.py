"""Judge potentials: references, figures of merit with errors, comparisons and learning curves."""

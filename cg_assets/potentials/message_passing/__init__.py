"""Many-body potential of beads by message passing over bead distances."""

"""Existing trajectories: their formats, their clocks, and the frames that are read from them."""

"""A small network that answers like another simulated user."""

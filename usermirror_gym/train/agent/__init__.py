"""Training of agents against a simulated user."""

"""The checks of the fidelity card."""

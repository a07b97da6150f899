"""Training of the session readout."""

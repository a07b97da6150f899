"""The fidelity card as tables, plots, sentences and pages."""

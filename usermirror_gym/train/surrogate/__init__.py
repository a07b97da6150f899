"""Distillation of a surrogate from a simulated user."""

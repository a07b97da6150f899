"""Statistics that several rooms share: bootstrap, scores of choices, choice models."""

"""How a language model becomes a simulated user: recipes, stages, calibration, checkpoints."""

"""The loop of a training: trainers, weights, resuming, curves."""

"""The loop of a training: trainers, weights, callbacks, curves."""

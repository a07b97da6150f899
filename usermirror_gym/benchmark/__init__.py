"""Recommenders in front of the simulated user: play, measure, report, replay, export."""

"""Agents that learn from a simulated user: bandits, SlateQ, REINFORCE, PPO."""

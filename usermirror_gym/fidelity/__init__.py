"""Is the simulated user like real people?"""

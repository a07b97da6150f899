"""What a build is searched for: leaks, and lists that give the choice away."""

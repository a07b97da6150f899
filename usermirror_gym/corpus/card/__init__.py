"""The data card of a build."""

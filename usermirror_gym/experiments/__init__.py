"""Experiments above everything else; their interfaces may change."""

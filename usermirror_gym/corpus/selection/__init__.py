"""Which scenes and which pairs of rationales are kept."""

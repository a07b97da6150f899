"""Simulators by name."""
from __future__ import annotations
from usermirror_gym.simulators.classic import PopularityChooser, UniformChooser
def make_simulator(name, split, **options):
    return {"uniform": lambda: UniformChooser(**options), "popularity": lambda: PopularityChooser(split, **options)}[name]()

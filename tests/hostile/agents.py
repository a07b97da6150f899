"""Folders of agents: RecBole's settings, PPO's policy, headers."""

from __future__ import annotations

from tests.hostile.case import Case

CASES: list[Case] = []

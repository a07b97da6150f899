"""Replies of servers: endless, huge, senseless."""

from __future__ import annotations

from tests.hostile.case import Case

CASES: list[Case] = []

"""A Gymnasium environment whose user is an LLM."""

from __future__ import annotations

__version__ = "0.1.0"

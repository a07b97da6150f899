"""``usermirror``: one command; parses, calls, prints."""

from usermirror_gym.cli.main import app

__all__ = ["app"]

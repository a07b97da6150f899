"""``python -m usermirror_gym.cli`` is ``usermirror``."""

from usermirror_gym.cli import app

app()

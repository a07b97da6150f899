"""A Gymnasium environment whose user is an LLM.

Importing this package registers ``UserMirror/Slate-v0``; torch, transformers and RecBole are
loaded only by what needs them.
"""

from __future__ import annotations

import os
import signal
import sys

STOPPED = "Stopped. Builds, training and benchmarks go on with the same command."


def stop(*_: object) -> None:
    """Interrupted while modules are imported: nothing has begun, and a traceback says nothing."""
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(130)


# For the command alone, which takes it back when it begins: elsewhere signals are not ours.
_begun_as = [os.path.basename(word).removesuffix(".exe") for word in sys.orig_argv[1:3]]
_is_command = _begun_as[:1] == ["usermirror"] or _begun_as == ["-m", "usermirror_gym.cli"]
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, stop)

import gymnasium  # noqa: E402

__version__ = "0.1.0"

gymnasium.register(
    id="UserMirror/Slate-v0",
    entry_point="usermirror_gym.envs.slate:SlateEnv",
    vector_entry_point="usermirror_gym.envs.vector:SlateVectorEnv",
    max_episode_steps=20,
)

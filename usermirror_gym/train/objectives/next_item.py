"""Histories as plain text: the model learns to name the next item of a user.

A window of a history reads exactly as
:meth:`likelihood` words it, and every line of it is a
label, predicted from the profile and the lines before it.  Windows are cut at other places in
every epoch, so that each item is met behind long and short histories.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import numpy as np

from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import ConfigError
from usermirror_gym.scenes.randomness import integers, uniforms
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.words.prompt import PromptBuilder, PromptConfig
from usermirror_gym.train.config import Stage
from usermirror_gym.train.objectives.sequences import Row, Wording, epoch_keys, sequence
from usermirror_gym.types import IntArray

# Random streams, see scenes/randomness.py.
_CUT, _ALONE, _WHICH, _WIDTH = range(40, 44)


class Histories:
    """Windows of what users did before T0.

    In an epoch every interaction is the label of one line (unless its window is replaced, see
    ``alone``), so a user weighs as much as they have interactions.

    Args:
        split: only ``split.before`` is read.
        stage: ``history`` is the range of a window's lines, drawn anew for every user and epoch, by
            default as many as the readout ever sees at once; see ``alone`` and ``loss_on``, too.

    Raises:
        ConfigError: nobody did anything before T0.
    """

    def __init__(
        self,
        split: TimeSplit,
        builder: PromptBuilder,
        wording: Wording,
        stage: Stage,
        *,
        seed: int,
    ) -> None:
        if not split.histories:
            raise ConfigError(f"nobody in {split.dataset.name!r} did anything before T0")
        self._builder, self._wording = builder, wording
        self._items = {user: history.items for user, history in split.histories.items()}
        self._stage, self._seed = stage, seed
        most = window_lines(builder.config)
        least, self._high = stage.history or (most, most)
        self._low = max(least, 1)
        self._windows = lru_cache(2)(self._cut)

    def sizes(self, epoch: int) -> IntArray:
        """``(n,)`` lines of each window."""
        windows = self._windows(epoch)
        return windows[:, 2] - windows[:, 1]

    def row(self, epoch: int, index: int) -> Row:
        """A window in tokens; lines that do not fit are left out at its end."""
        user, start, stop, nobody = self._windows(epoch)[index].tolist()
        items = tuple(self._items[user][start:stop].tolist())
        prompt = (
            self._builder.unconditional(items)
            if nobody
            else self._builder.likelihood(Scene(user, (), (), (), items, name=f"user {user}"))
        )
        question = self._wording.encode(prompt)
        ends = accumulate(map(len, question.options), initial=len(question.prefix))
        fits = sum(end <= self._wording.max_length for end in ends) - 1
        if fits < 1:
            raise ConfigError(
                f"the first line of user {user} does not fit into max_length = "
                f"{self._wording.max_length} tokens: raise it"
            )
        ids = question.prefix + tuple(i for line in question.options[:fits] for i in line)
        return sequence(ids, len(question.prefix), self._stage.loss_on)

    def _cut(self, epoch: int) -> IntArray:
        """``(n, 4)`` user, first line, line behind the last, whether it is a single line."""
        users = np.array(sorted(self._items), np.int64)
        lengths = np.array([len(self._items[u]) for u in users.tolist()], np.int64)
        own = epoch_keys(self._seed, epoch, users)
        widths = integers(own, _WIDTH, self._low, self._high)
        firsts = integers(own, _CUT, 1, widths)
        counts = 1 + np.maximum(-((firsts - lengths) // widths), 0)
        owner = np.repeat(np.arange(len(users)), counts)
        number = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        starts = np.where(number == 0, 0, firsts[owner] + (number - 1) * widths[owner])
        stops = np.minimum(firsts[owner] + number * widths[owner], lengths[owner])
        return self._with_lonely(epoch, np.column_stack([users[owner], starts, stops]))

    def _with_lonely(self, epoch: int, windows: IntArray) -> IntArray:
        """Some windows reduced to one of their lines."""
        own = epoch_keys(self._seed, epoch, windows[:, 0] << 32 | windows[:, 1])
        nobody = uniforms(own, _ALONE)[:, 0] < self._stage.alone
        picked = integers(own, _WHICH, windows[:, 1], windows[:, 2] - 1)
        starts = np.where(nobody, picked, windows[:, 1])
        stops = np.where(nobody, picked + 1, windows[:, 2])
        return np.column_stack([windows[:, 0], starts, stops, nobody])


def window_lines(config: PromptConfig) -> int:
    """The most lines that the readout ever sees at once: the history, what was chosen from the
    lists of a session that is not yet folded back, and the line that is asked for."""
    return config.history_lines + (config.max_turns if config.form == "session" else 1)

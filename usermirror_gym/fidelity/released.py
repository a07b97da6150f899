"""The released UserMirrorer-eval set as scenes, and a simulator that asks about it as released.

The set holds texts, not a log.  Each text gets a number, so that whatever reorders lists or swaps
memories works on it as on any scene; the simulator turns the numbers back into the very prompt of
the release.  *None of these* is no option there: its probability is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from usermirror_gym.corpus.released.read import PromptFrame, ReleasedEval
from usermirror_gym.corpus.released.rows import EvalScene
from usermirror_gym.engines.base import Engine
from usermirror_gym.errors import ConfigError
from usermirror_gym.fidelity.scenes import CardScenes
from usermirror_gym.scenes.scene import Scene
from usermirror_gym.scenes.table import SCHEMA
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.types import Prompt


@dataclass(frozen=True)
class ReleasedTexts:
    """What the item ids in the scenes stand for; id 0 is nothing."""

    texts: tuple[str, ...]
    """A profile, a whole history, or an option."""
    datasets: tuple[str, ...]
    """Of which data set each text is."""


def released_scenes(
    released: ReleasedEval, *, source: str, count: int
) -> tuple[CardScenes, ReleasedTexts]:
    """The first ``count`` rows as scenes, and their texts.

    The memory of a scene has two ids: that of the profile's text and that of the history's.

    Raises:
        ConfigError: ``count`` is below 1, or no row has its texts.
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}")
    if not released.scenes:
        withheld = sum(released.withheld.values())
        raise ConfigError(
            f"{source}: none of {withheld:,} rows has its texts; complete the set with its "
            "authors' notebook (see usermirror_gym/corpus/released/read.py)"
        )
    kept = released.scenes[:count]
    # A file without user ids: every row is a user of its own.
    owners = [(s.dataset, s.user) if s.user else (s.name, "") for s in kept]
    users = {owner: number for number, owner in enumerate(dict.fromkeys(owners), start=1)}
    texts, datasets, rows = [""], [""], []
    for scene, owner in zip(kept, owners, strict=True):
        rows.append(_row(scene, users[owner], len(texts)))
        texts += [scene.profile, scene.history, *scene.actions]
        datasets += [scene.dataset] * (2 + len(scene.actions))
    scenes = CardScenes(
        source, None, SCHEMA.empty_table(), SCHEMA.empty_table(),
        pa.Table.from_pylist(rows, SCHEMA),
    )  # fmt: skip
    return scenes, ReleasedTexts(tuple(texts), tuple(datasets))


@dataclass(frozen=True, eq=False)
class ReleasedSimulator:
    """Reads the letter behind "Behavior: [" of the released prompt.

    Attributes:
        engine: runs the LLM.
        frame: system text and headings, from the train set (``ReleasedTrain.frame``).
        texts: what the numbers in the scenes stand for.
    """

    engine: Engine
    frame: PromptFrame
    texts: ReleasedTexts

    @property
    def name(self) -> str:
        """Names the model."""
        return f"released({self.engine.model_id})"

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        """See :class:`~usermirror_gym.simulators.base.UserSimulator`."""
        answers = self.engine.choice_logprobs([self.prompt(scene) for scene in scenes])
        width = max((len(scene.slate) for scene in scenes), default=0)
        probs = np.zeros((len(answers), width + 1))
        for row, answer in enumerate(answers):
            probs[row, : len(answer.logprobs)] = np.exp(answer.logprobs)
        return ChoiceBatch(
            probs,
            prompt_tokens=np.array([a.prompt_tokens for a in answers], np.int64),
            cached_tokens=np.array([a.cached_tokens for a in answers], np.int64),
        )

    def prompt(self, scene: Scene) -> Prompt:
        """The question as the released checkpoints learnt to answer it."""
        texts = self.texts.texts
        profile, history = (texts[item] for item in scene.history or (0, 0))
        options = tuple(texts[item] for item in scene.slate)
        dataset = self.texts.datasets[scene.slate[0]]
        return self.frame.prompt(EvalScene(scene.name, dataset, profile, history, options, -1))


def _row(scene: EvalScene, user: int, first: int) -> dict[str, object]:
    """A row of the scenes table whose texts get the ids from ``first`` on."""
    memory = [first, first + 1]
    slate = list(range(first + 2, first + 2 + len(scene.actions)))
    return {
        "scene_id": scene.name, "dataset": scene.dataset, "domain": scene.dataset,
        "split": "eval", "kind": "impression", "user_id": user, "seen_user": False,
        "timestamp": 0, "history": memory, "ratings": [float("nan")] * 2, "ages": [-1] * 2,
        "behaviours": [""] * 2, "slate": slate, "samplers": ["released"] * len(slate),
        "notes": [""] * len(slate), "target": scene.target, "item_id": slate[scene.target],
        "profile": scene.profile, "history_texts": ["", scene.history],
        "options": list(scene.actions),
    }  # fmt: skip

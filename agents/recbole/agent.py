"""Any RecBole model as an agent that keeps up with the session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from usermirror_gym.agents.base import Transition
from usermirror_gym.agents.ranking import SeenItems, check_k, not_fitted, observed_items, top_k
from usermirror_gym.agents.recbole.data import Tables
from usermirror_gym.agents.recbole.fit import Built, build, settings_for, train
from usermirror_gym.agents.recbole.models import canonical_model
from usermirror_gym.agents.recbole.serving import Asked, Scorer, scorer_for
from usermirror_gym.agents.recbole.shim import contained, read_texts
from usermirror_gym.data import TimeSplit
from usermirror_gym.errors import AgentError, CheckpointError, UserMirrorError
from usermirror_gym.types import PAD, BoolArray, IntArray, Observation

_BATCH = 512


class RecBoleAgent:
    """A recommender from RecBole (Zhao et al., CIKM 2021), trained before T0, served in a session.

    Nothing is retrained while a session runs.  Sequential models read the grown history;
    autoencoders and item-item models read its row; models with a vector per user fold growth in
    by ridge regression (see :mod:`usermirror_gym.agents.recbole.serving`).  A user without any
    history gets the most popular items.  Items without an interaction before T0 are never shown,
    unless the model reads item features.

    Args:
        model: RecBole's name of it, in any case.
        config: RecBole settings on top of :mod:`usermirror_gym.agents.recbole.models`.
        seed: of training; same seed, same agent.
        progress: show a bar over the epochs.

    Raises:
        UnknownNameError: RecBole has no such model; suggests the nearest one.
        AgentError: the model is known not to run; says why.
    """

    def __init__(
        self,
        model: str,
        *,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.model = self.name = canonical_model(model)
        self.config = read_texts(config or {})
        self.seed = seed
        self.progress = progress
        self.fit_seconds = 0.0
        self._built: Built | None = None

    def fit(self, data: TimeSplit, *, after_epoch: Callable[[Self], bool] | None = None) -> Self:
        """Train on everything before T0.

        Args:
            after_epoch: given the agent as it stands after every epoch, which can be asked for
                scores; training ends when it says True.  Never called for models that are solved
                in closed form.

        Raises:
            AgentError: RecBole could not train the model on these data or settings; says why.
        """
        start = time.perf_counter()
        tables = Tables.of(data)
        with _explained(self.model), contained(self.seed) as folder:
            settings = settings_for(self.model, self.config)
            built = build(self.model, settings, tables, self.seed, folder)

            def ended() -> bool:
                assert after_epoch is not None
                self._serve(built, tables)
                return after_epoch(self)

            train(built, progress=self.progress, after_epoch=after_epoch and ended)
        self._serve(built, tables)
        self.fit_seconds = time.perf_counter() - start
        return self

    def observe(self, transition: Transition) -> None:
        """Does nothing: growth reaches the model through the observations."""

    def recommend(self, observations: Observation, k: int) -> IntArray:
        """See :class:`usermirror_gym.agents.Agent`.

        Raises:
            AgentError: not fitted, or ``k`` exceeds the number of items the model can rank.
        """
        self._fitted()
        check_k(self.name, k, len(self._items) - 1, "items can be ranked by it")
        n = len(observations["user_id"])
        parts = [
            top_k(self.scores(part), self._seen.mask(part), k)
            for i in range(0, n, _BATCH)
            for part in [{key: v[i : i + _BATCH] for key, v in observations.items()}]
        ]
        return np.concatenate(parts) if parts else np.zeros((0, k), np.int64)

    def scores(self, observations: Observation) -> np.ndarray:
        """``(N, n_items + 1)`` float32 scores by our item ids; ``-inf`` where there is none."""
        asked, empty = self._ask(observations)
        out = np.full((len(empty), self._seen.n_items + 1), -np.inf, np.float32)
        out[np.ix_(empty, self._items)] = self._popularity
        if len(asked):
            with _explained(self.model, "score users with"):
                scores = self._scorer(asked)
            out[np.ix_(~empty, self._items)] = np.nan_to_num(scores, nan=-np.inf)
        out[:, PAD] = -np.inf
        return out

    def item_factors(self) -> np.ndarray:
        """``(n_items + 1, d)`` float32 trained vectors of the items by our ids; 0 where none is.

        Raises:
            AgentError: not fitted, or the model has no vector per item.
        """
        table = getattr(self._fitted().model, "item_embedding", None)
        if table is None or not hasattr(table, "weight"):
            raise AgentError(f"{self.name} has no vector per item; use BPR, LightGCN or the like")
        vectors = table.weight.detach().cpu().numpy()[: len(self._items)]
        factors = np.zeros((self._seen.n_items + 1, vectors.shape[1]), np.float32)
        factors[self._items[1:]] = vectors[1:]
        return factors

    def save(self, folder: str | Path) -> Path:
        """Write the fitted agent; see :func:`usermirror_gym.agents.recbole.store.save`."""
        from usermirror_gym.agents.recbole.store import save

        return save(self, self._fitted(), self._tables, Path(folder))

    def fit_once(self, split: TimeSplit, folder: Path) -> Self:
        """As it was fitted and saved in a folder; if there is none, it is fitted and saved now.

        Raises:
            CheckpointError: the folder holds another agent.
            AgentError: it has settings that cannot be saved; said before it is trained.
        """
        from usermirror_gym.agents.recbole.store import check_can_be_saved

        if folder.exists():
            agent = self.load(folder, progress=self.progress)
            there, here = ([a.model, a.config, a.seed] for a in (agent, self))
            if there != here:
                raise CheckpointError(
                    f"{folder} holds {there[0]} with the settings {there[1]} and the seed "
                    f"{there[2]}, not {here[0]} with {here[1]} and {here[2]}: delete it to train "
                    "the agent again"
                )
            agent.name = self.name
            return agent
        check_can_be_saved(self)
        self.fit(split).save(folder)
        return self

    @classmethod
    def load(cls, folder: str | Path, *, progress: bool = True) -> Self:
        """Read what :meth:`save` wrote; see :func:`usermirror_gym.agents.recbole.store.load`."""
        from usermirror_gym.agents.recbole.store import load

        header, built, tables = load(Path(folder))
        agent = cls(
            header["model"], config=header["config"], seed=header["seed"], progress=progress
        )
        agent.fit_seconds = header["fit_seconds"]
        agent._serve(built, tables)
        return agent

    def _serve(self, built: Built, tables: Tables) -> None:
        self._built, self._tables = built, tables
        self._seen = SeenItems.from_events(
            tables.users, tables.items, int(tables.users.max()), tables.n_items
        )
        self._items = built.item_ids.ours
        users, items = built.user_ids.theirs[tables.users], built.item_ids.theirs[tables.items]
        shape = len(built.user_ids.ours), len(self._items)
        trained = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
        trained.data[:] = 1.0  # an item consumed twice is still one item
        self._popularity = np.bincount(items, minlength=len(self._items)).astype(np.float32)
        self._scorer: Scorer = scorer_for(built, trained)

    def _fitted(self) -> Built:
        if self._built is None:
            raise not_fitted(self.name)
        return self._built

    def _ask(self, observations: Observation) -> tuple[Asked, BoolArray]:
        """The rows that have a history, in RecBole's ids, and which rows have none."""
        built = self._fitted()
        users = np.asarray(observations["user_id"]).astype(np.int64)
        known = built.user_ids.to_model(users)
        rows, before = self._seen.rows(users)
        bounds = np.searchsorted(rows, np.arange(len(users) + 1))
        histories, grown = [], np.zeros(len(users), bool)
        for row, observed in enumerate(observed_items(observations)):
            old = before[bounds[row] : bounds[row + 1]]
            history, grown[row] = _join(old, observed[observed != PAD])
            mapped = built.item_ids.to_model(history)
            histories.append(mapped[mapped != PAD])
        grown |= known == 0
        empty = np.array([len(h) == 0 for h in histories], bool)
        kept = [h for h in histories if len(h)]
        return Asked(known[~empty], kept, grown[~empty]), empty


def _join(before: IntArray, observed: IntArray) -> tuple[IntArray, bool]:
    """Distinct items oldest first, and whether ``observed`` has any that are not in ``before``."""
    order = dict.fromkeys(reversed([*before.tolist(), *observed.tolist()]))
    history = np.array(list(reversed(order)), np.int64)
    return history, len(order) > len(set(before.tolist()))


@contextmanager
def _explained(model: str, doing: str = "train") -> Iterator[None]:
    """Turn whatever RecBole raises into an error that names the model."""
    try:
        yield
    except UserMirrorError:
        raise
    except Exception as error:
        raise AgentError(
            f"RecBole could not {doing} {model}: {type(error).__name__}: {error}. "
            "Check the settings in config=, or choose another model."
        ) from error

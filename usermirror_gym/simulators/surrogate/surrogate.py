"""The surrogate: a small network that answers as a slower simulator of the same users would.

One file, ``surrogate.safetensors``: the weights of
:class:`SurrogateNet`, large tables as float16, and in its
metadata the sizes, the profile features, and which catalogue its item vectors belong to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from usermirror_gym.data import RecDataset, TimeSplit
from usermirror_gym.errors import CheckpointError, ConfigError, SceneError
from usermirror_gym.files import write_bytes
from usermirror_gym.foreign import parse_json
from usermirror_gym.scenes.scene import Scene, SceneBatch
from usermirror_gym.simulators.affinity.affinity import newest_lines, shown_slates
from usermirror_gym.simulators.base import ChoiceBatch
from usermirror_gym.simulators.surrogate.histories import Past, Whole
from usermirror_gym.simulators.surrogate.profile_codes import ProfileFeature, profile_codes
from usermirror_gym.threads import one_thread
from usermirror_gym.types import PAD, TOKEN, Float32Array, IntArray

if TYPE_CHECKING:
    from usermirror_gym.simulators.surrogate.history_reader import Pools
    from usermirror_gym.simulators.surrogate.surrogate_net import SurrogateNet

SURROGATE_WEIGHTS = "surrogate.safetensors"
_HALF = ("past", "option", "general", "general_far", "ahead", "behind")
"""Stored as float16."""


@dataclass(frozen=True)
class Catalogue:
    """Which items the vectors of a network belong to: number n of one is number n of the other.

    Attributes:
        dataset: name of the data set, for messages.
        n_items: how many.
        digest: sixteen hexadecimal digits of raw ids and titles, in order.
    """

    dataset: str
    n_items: int
    digest: str

    @classmethod
    def of(cls, dataset: RecDataset) -> Catalogue:
        lines = zip(dataset.items[TOKEN].astype(str), dataset.titles[1:], strict=True)
        text = "\n".join(f"{token}\t{title}" for token, title in lines)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(dataset.name, dataset.n_items, digest[:16])

    def check(self, dataset: RecDataset) -> None:
        """Raise ConfigError unless the data set has these items, in this order."""
        given = Catalogue.of(dataset)
        if (given.n_items, given.digest) == (self.n_items, self.digest):
            return
        what = (
            f"{given.n_items:,} items" if given.n_items != self.n_items else "other ids or titles"
        )
        raise ConfigError(
            f"this surrogate knows the {self.n_items:,} items of {self.dataset!r} one by one, and "
            f"{dataset.name!r} has {what}: what it says of them would mean nothing. Distil one on "
            "these data (usermirror train-surrogate), or take its teacher."
        )


@dataclass(frozen=True)
class SurrogateFacts:
    """What a network needs to be asked, beside its weights.

    Attributes:
        teacher: name of the simulator it imitates.
        catalogue: whose items it knows.
        profiles: what it reads of a user.
    """

    teacher: str
    catalogue: Catalogue
    profiles: tuple[ProfileFeature, ...]


@dataclass(frozen=True)
class Questions:
    """B scenes as the network reads them.

    Attributes:
        users: ``(B,)``.
        memory: ``(B, L)`` newest first, padded with 0.
        session: ``(B, 3)``, see ``session_features``.
        slates: ``(B, K)`` padded with 0.
        whole: all that they did, if the network reads it.
    """

    users: IntArray
    memory: IntArray
    session: Float32Array
    slates: IntArray
    whole: Whole | None = None

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def of(cls, scenes: Sequence[Scene], lines: int, past: Past | None = None) -> Questions:
        """The columns of any scenes.

        Args:
            lines: newest ones of their memories.
            past: reads all that they did, for a network with ``history``.
        """
        from usermirror_gym.simulators.surrogate.surrogate_net import session_features

        batch = SceneBatch.of(scenes)
        slates = shown_slates(batch, scenes)
        whole = None if past is None else past.of(batch, slates)
        memory = (
            newest_lines(batch, lines)
            if past is None or whole is None
            else past.newest(batch, whole.taken, lines)
        )
        turns, length = batch.turn_counts, (memory != PAD).sum(axis=1)
        session = session_features(turns, _misses(batch), length)
        return cls(batch.user_ids, memory, session, slates, whole)

    def part(self, rows: IntArray | slice | np.ndarray) -> Questions:
        """Some of them."""
        whole = None if self.whole is None else self.whole[rows]
        return Questions(
            self.users[rows], self.memory[rows], self.session[rows], self.slates[rows], whole
        )


class SurrogateSimulator:
    """Answers in well under a millisecond what its teacher would have answered, nearly.

    It reads the newest lines of history and session together, profile features, where the session
    stands, and the list; not ratings, ages, behaviours or notes, and no text.  A network with
    ``history`` reads all lines, with ratings and ages; what it makes of histories at T0 is kept, as
    long as its weights stay the same.

    Args:
        net: trained; see :func:`usermirror_gym.train.surrogate.distil.distill`.
        facts: what it was trained for.
        split: the data whose items and users are talked about.
        offers_outside: false forces a choice.
        folder: where it was read from, and its report lies.

    Raises:
        ConfigError: the data have other items than those of training.
    """

    def __init__(
        self,
        net: SurrogateNet,
        facts: SurrogateFacts,
        split: TimeSplit,
        *,
        offers_outside: bool = True,
        folder: Path | None = None,
    ) -> None:
        facts.catalogue.check(split.dataset)
        self.facts, self.offers_outside, self.folder = facts, offers_outside, folder
        self._codes = profile_codes(facts.profiles, split.dataset.users)
        shape = net.shape
        self.past = Past(split, shape.history) if shape.history else None
        self.net = net

    @property
    def net(self) -> SurrogateNet:
        """The network; setting another, or this one after more training, renames the simulator."""
        return self._net

    @net.setter
    def net(self, net: SurrogateNet) -> None:
        self._net = net.eval()
        self._digest = _digest(net)
        self._pools: Pools | None = None

    @property
    def name(self) -> str:
        forced = "" if self.offers_outside else ", forced"
        return f"surrogate({self.facts.teacher}, net@{self._digest[:8]}{forced})"

    @property
    def history_lines(self) -> int:
        """Most lines of the past that it reads; 0: what environments show anyway."""
        return self.net.shape.history

    def choose(self, scenes: Sequence[Scene]) -> ChoiceBatch:
        return ChoiceBatch(self.answer(self.questions(scenes)))

    def questions(self, scenes: Sequence[Scene]) -> Questions:
        """What it reads of scenes."""
        return Questions.of(scenes, self.net.shape.lines, self.past)

    def answer(self, asked: Questions) -> np.ndarray:
        """``(B, K + 1)`` probabilities.

        Raises:
            SceneError: an item or a user that the data do not have.
        """
        import torch

        self._check(asked)
        with torch.inference_mode(), one_thread():
            inputs = self._with_pooled(self.inputs(asked))
            probs = self.net(inputs, offers_outside=self.offers_outside).exp()
        return probs.numpy()

    def inputs(self, asked: Questions) -> Any:
        """The same for the network, profiles looked up."""
        import torch

        from usermirror_gym.simulators.surrogate.surrogate_net import NetInputs

        whole = asked.whole
        if whole is not None:
            own = (whole.taken, whole.passed, whole.had, whole.count, whole.far)
            whole = Whole(whole.histories, *map(torch.from_numpy, own))
        columns = (asked.memory, self._codes[asked.users], asked.session, asked.slates)
        memory, profiles, session, slates = (
            torch.from_numpy(np.ascontiguousarray(column)) for column in columns
        )
        return NetInputs(memory, profiles, session, slates, whole)

    def _with_pooled(self, inputs: Any) -> Any:
        """Histories at T0 are pooled once for each number of lines that were taken since."""
        whole, past = inputs.whole, self.past
        if whole is None or past is None or whole.histories.store is not past.at_t0:
            return inputs
        if self._pools is None:
            from usermirror_gym.simulators.surrogate.history_reader import Pools

            self._pools = Pools(self.net.pooled, past.at_t0)
        pooled = self._pools.of(whole.histories.of, (whole.taken != PAD).sum(dim=1))
        return inputs._replace(whole=replace(whole, histories=pooled))

    def _check(self, asked: Questions) -> None:
        items, users = self.facts.catalogue.n_items, len(self._codes) - 1
        told = [("item", asked.slates, items), ("item", asked.memory, items),
                ("user", asked.users, users)]  # fmt: skip
        if asked.whole is not None:
            own = [asked.whole.taken, asked.whole.passed]
            store = asked.whole.histories.store
            if self.past is not None and store is not self.past.at_t0:
                own.append(store.items)
            told += [("item", values, items) for values in own]
        for what, values, most in told:
            wrong = values[(values < 0) | (values > most)]
            if len(wrong):
                raise SceneError(
                    f"a scene has {what} {wrong[0]}, and {self.facts.catalogue.dataset!r} has the "
                    f"{what}s 1 .. {most}: build scenes from the data that the surrogate was made "
                    "with"
                )


def write_surrogate(folder: str | Path, net: SurrogateNet, facts: SurrogateFacts) -> Path:
    """Write ``surrogate.safetensors``, whole or not at all.

    Args:
        folder: made if absent.

    Returns:
        the file.

    Raises:
        CheckpointError: a number that float16 cannot hold.
    """
    from safetensors.torch import save

    weights = net.merged()
    path = Path(folder) / SURROGATE_WEIGHTS
    for name in weights.keys() & set(_HALF):
        weights[name] = weights[name].half()
    for name, values in weights.items():
        if not values.isfinite().all():
            raise CheckpointError(
                f"{path}: {name} holds numbers that cannot be stored: train again"
            )
        weights[name] = values.contiguous()
    metadata = json.dumps({"shape": asdict(net.shape), **asdict(facts)})
    return write_bytes(path, save(weights, {"surrogate": metadata}))


def read_surrogate(folder: str | Path) -> tuple[SurrogateNet, SurrogateFacts]:
    """What :func:`write_surrogate` wrote.

    Raises:
        CheckpointError: there is no such file, or it has another content; names it.
    """
    from safetensors import safe_open

    from usermirror_gym.simulators.surrogate.surrogate_net import NetShape, net_of

    path = Path(folder).expanduser() / SURROGATE_WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            about = parse_json((file.metadata() or {})["surrogate"])
        net = net_of(NetShape(**about["shape"]), weights)
        facts = TypeAdapter(SurrogateFacts).validate_python(about)
    except Exception as error:  # safetensors' and torch's own errors, OSError, TypeError, KeyError
        raise CheckpointError(
            f"cannot read {path} as a surrogate ({type(error).__name__}: {error}). Fetch or "
            "distil it again."
        ) from error
    if any(not values.isfinite().all() for values in weights.values()):
        raise CheckpointError(f"{path} holds numbers that are not finite: distil it again.")
    return net, facts


def _misses(batch: SceneBatch) -> IntArray:
    """``(B,)`` how many of the last lists in a row ended with *none of these*."""
    chosen, counts = batch.turn_chosen, batch.turn_counts
    numbers = np.arange(1, chosen.shape[1] + 1)
    taken = (chosen != PAD) & (numbers <= counts[:, None])
    misses: IntArray = counts - (taken * numbers).max(axis=1, initial=0)
    return misses


def _digest(net: SurrogateNet) -> str:
    shape = net.shape
    content = hashlib.sha256(repr(shape).encode())
    if shape.history or shape.follow:
        content.update(repr((shape.history, shape.follow, shape.once)).encode())
    for name, values in net.state_dict().items():
        content.update(name.encode() + values.detach().numpy().tobytes())
    return content.hexdigest()[:16]

"""The network of the surrogate: from a memory, a profile and a list to choice probabilities.

Items are vectors; nothing is read at run time.  With ``h(i)`` and ``o(i)`` the two vectors of item
i, cut into G tastes of equal width, and the memory's items newest first::

    taste_g = sum over m < n of softmax(lags_g[:n])[m] * h_g(m) + profile_g
    match_g(i) = taste_g . o_g(i), without what i's own line in the memory adds

A small network with one hidden layer reads of every option its matches, what it has for everybody,
its popularity before T0, whether it is in the memory, and what else is on the list (its likeness to
the others, their matches).  It gives two numbers, u_i and v_i, as in a nested logit (Ben-Akiva &
Lerman, Discrete Choice Analysis, 1985, ch. 10)::

    P(i | some item) = softmax(u)_i
    P(none of these) = 1 / (1 + exp(log sum_i exp(v_i) - w))

u = v is a conditional logit.  w depends on the session: lists seen, lists in a row without a
choice, lines of the memory, length of the list.  Position effects are a number per place.

With ``history`` the network reads all that a user did before the session as well, with ages and
ratings, and what was shown and not taken: the taste is then what a
:class:`~usermirror_gym.simulators.surrogate.history_reader.HistoryReader` makes of these, and of
users who come back after an hour the weights are others.  With ``follow`` the small network also
reads ``log(max(sum over m of softmax(lags)[m] * a(m) . b(i), 0) + floor)`` of the memory's lines:
what they are followed by.  With ``once`` an option that was taken before loses a number that is
not learned.

A row's numbers are sums over one axis, in one order, never a product of matrices: they do not
depend on the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, logsigmoid

from usermirror_gym.simulators.session.session_net import SessionShape
from usermirror_gym.simulators.surrogate.histories import Histories, Whole
from usermirror_gym.simulators.surrogate.history_reader import HistoryReader
from usermirror_gym.types import PAD, Float32Array, FloatArray, IntArray

PLACES = 26
"""Places of a list that have a number of their own; those behind have 0."""
SESSION = 4
"""Numbers that say where a session stands; see :func:`session_features`."""
_OPTION_EXTRAS = 5
_FAR = -1e30
"""In place of minus infinity, which has no gradient."""
_NEVER = 60.0
_FLOOR = 0.5


@dataclass(frozen=True)
class NetShape:
    """Sizes of a :class:`SurrogateNet`.

    Attributes:
        n_items: of the catalogue.
        profiles: values of profile features; 0 for none.
        dim: numbers of an item's vector, a multiple of ``tastes``.
        tastes: G, ways to weigh the lines of the memory.
        lines: newest lines of the memory that count.
        hidden: units of the two small networks; with 0 an option's numbers are a weighted sum of
            what they read, and w is the same for all.
    """

    n_items: int
    profiles: int
    dim: int = 64
    tastes: int = 2
    lines: int = 20
    hidden: int = 16
    # Named in a digest only where they are not zero: simulators of before keep their names.
    history: int = field(default=0, repr=False)
    """Newest lines of history and session that are read with ages and ratings; 0: the memory."""
    follow: int = field(default=0, repr=False)
    """Numbers of an item's vector that say what follows what; 0: nothing does."""
    once: bool = field(default=False, repr=False)
    """Nobody takes an item twice.  Only with ``history``."""


class NetInputs(NamedTuple):
    """B questions as the network reads them; tensors, or arrays of the same shapes."""

    memory: Tensor
    """``(B, L)`` int64, newest first, 0 behind."""
    profiles: Tensor
    """``(B, C)`` int64, one value per profile feature; 0 for unknown."""
    session: Tensor
    """``(B, SESSION - 1)`` float32: lists seen, misses in a row, lines of the memory."""
    slates: Tensor
    """``(B, K)`` int64, 0 behind."""
    whole: Whole | None = None
    """All that was done, for a network with ``history``."""

    def part(self, rows: Any) -> NetInputs:
        """Some of them."""
        whole = None if self.whole is None else self.whole[rows]
        memory, profiles, session, slates = (column[rows] for column in self[:4])
        return NetInputs(memory, profiles, session, slates, whole)


class SurrogateNet(nn.Module):
    """See the module.

    Args:
        shape: its sizes.
        popularity: ``(n_items + 1,)`` interactions before T0.
        seed: of the initial weights.
        words: ``(n_items + 1, e)`` what is known of the items' texts.  Vectors are then a linear
            map of it plus what the words leave open; :meth:`merged` adds them up.
    """

    popularity: Tensor
    words: Tensor | None
    never: Tensor
    floor: Tensor

    def __init__(
        self,
        shape: NetShape,
        popularity: IntArray | FloatArray,
        *,
        seed: int = 0,
        words: Float32Array | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        draw = torch.Generator().manual_seed(seed)
        rows, groups, width = shape.n_items + 1, shape.tastes, shape.dim // shape.tastes
        more = (shape.history > 0) + (shape.follow > 0)
        options, hidden = groups + _OPTION_EXTRAS + more, shape.hidden

        def normal(*size: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*size, generator=draw) * scale)

        small = 0.0 if words is not None else 0.3 * width**-0.25
        self.past = normal(groups, rows, width, scale=small)
        self.option = normal(rows, shape.dim, scale=small)
        self.general = nn.Parameter(torch.zeros(rows))
        self.lags = nn.Parameter(-0.5 * torch.arange(1.0, shape.lines + 1).log().repeat(groups, 1))
        self.profile = nn.Parameter(torch.zeros(shape.profiles + 1, shape.dim))
        self.places = nn.Parameter(torch.zeros(PLACES + 1))
        self.hidden = normal(options, hidden, scale=options**-0.5)
        self.hidden_bias = normal(hidden, scale=0.5)
        self.outputs = normal(2, hidden, scale=0.3 * max(hidden, 1) ** -0.5)
        self.direct = nn.Parameter(torch.zeros(2, options))
        self.session = normal(SESSION, hidden, scale=SESSION**-0.5)
        self.session_bias = normal(hidden, scale=0.5)
        self.session_output = normal(hidden, scale=0.1 * max(hidden, 1) ** -0.5)
        self.outside = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            self.direct[:, :groups] = 1.0
            self.past[:, PAD] = self.option[PAD] = 0.0
        logs = np.log1p(np.asarray(popularity, np.float64)) / 4.0
        self.register_buffer("popularity", torch.tensor(logs, dtype=torch.float32))
        if shape.history:
            self._add_history(options, seed)
        if shape.follow:
            self.ahead = normal(rows, shape.follow, scale=0.1)
            self.behind = normal(rows, shape.follow, scale=0.1)
            self.register_buffer("floor", torch.tensor(_FLOOR))
            with torch.no_grad():
                self.ahead[PAD] = self.behind[PAD] = 0.0
        self.register_buffer("words", None if words is None else torch.tensor(words))
        if words is not None:
            e = words.shape[1]
            start = torch.zeros(e, shape.dim)
            # Alike texts go together: each taste starts with its share of the words' directions.
            for k in range(min(e, shape.dim)):
                start[k, (k % groups) * width + k // groups] = 1.0
            self.words_past = nn.Parameter(start.clone())
            self.words_option = nn.Parameter(start.clone())
            self.words_general = nn.Parameter(torch.zeros(e))

    def _add_history(self, options: int, seed: int) -> None:
        """What only a network with ``history`` has; the reader has profiles of its own."""
        shape = self.shape
        of_reader = SessionShape(shape.dim, shape.tastes, shape.history, shape.profiles)
        self.reader = HistoryReader(of_reader, seed=seed)
        del self.profile
        self.lags = nn.Parameter(self.lags.detach()[:1].clone())
        self.general_far = nn.Parameter(torch.zeros(shape.n_items + 1))
        self.direct_far = nn.Parameter(torch.zeros(2, options))
        self.register_buffer("never", torch.tensor([[_NEVER, _NEVER], [0.0, 0.0]]))

    def forward(self, asked: NetInputs, *, offers_outside: bool = True) -> Tensor:
        """``(B, K + 1)`` log-probabilities, *none of these* last; very low where no option is.

        Args:
            asked: the questions.
            offers_outside: false forces a choice: the last column is minus infinity.
        """
        tables = self._tables()
        mask = asked.slates != PAD
        u, v = self._utilities(asked, mask, tables)
        which = torch.log_softmax(u.masked_fill(~mask, _FAR).double(), dim=1)
        if not offers_outside:
            return torch.cat([which, torch.full_like(which[:, :1], -torch.inf)], dim=1)
        value = torch.logsumexp(v.masked_fill(~mask, _FAR).double(), dim=1)
        gain = (value - self._reluctance(asked, mask).double())[:, None]
        return torch.cat([which + logsigmoid(gain), logsigmoid(-gain)], dim=1)

    def merged(self) -> dict[str, Tensor]:
        """Weights of the same network without words."""
        past, option, general = self._tables()
        kept = {n: t.detach().clone() for n, t in self.state_dict().items()
                if not n.startswith("words")}  # fmt: skip
        tables = {"past": past, "option": option, "general": general}
        return kept | {name: table.detach().clone() for name, table in tables.items()}

    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of all items in the memory, as options, and what they have for everybody."""
        if self.words is None:
            return self.past, self.option, self.general
        rows, groups = len(self.words), self.shape.tastes
        past = (self.words @ self.words_past).view(rows, groups, -1).transpose(0, 1)
        return (
            self.past + past,
            self.option + self.words @ self.words_option,
            self.general + self.words @ self.words_general,
        )

    def _utilities(
        self, asked: NetInputs, mask: Tensor, tables: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """u and v, each ``(B, K)``; what stands at padding does not matter."""
        past, option, general = tables
        offers = embedding(asked.slates, option, PAD)  # (B, K, d), zeros at padding for good
        whole = asked.whole
        if whole is None:
            weights = self._lag_weights(asked.memory)  # (G, B, L)
            taste = self._taste(asked, past, weights)  # (B, d)
            match = _grouped_sum(offers * taste[:, None, :], self.shape.tastes)  # (B, K, G)
            again, own = self._own_lines(asked, past, offers, weights)
            match = match - own
        else:
            match = _grouped_sum(offers * self._look(asked, past)[:, None, :], self.shape.tastes)
            again = whole.had.float() * (not self.shape.once)
        others = torch.clamp(mask.sum(dim=1, keepdim=True) - 1, min=1).float()
        looks = offers[:, :, : self.shape.dim // self.shape.tastes]
        alike = (looks * (looks.sum(dim=1, keepdim=True) - looks)).sum(dim=-1)
        liked = match.sum(dim=-1)
        rivals = (liked * mask).sum(dim=1, keepdim=True) - liked
        features = [
            *match.unbind(dim=-1),
            general[asked.slates],
            self.popularity[asked.slates],
            again,
            alike / others,
            rivals / others,
        ]
        if whole is not None:
            features.append(self.general_far[asked.slates])
        if self.shape.follow:
            features.append(self._followed(asked))
        u, v = (_mix(features, straight) for straight in self.direct)
        if self.shape.hidden:
            inner = _layer(features, self.hidden, self.hidden_bias)
            u, v = ((inner * out).sum(dim=-1) + own
                    for out, own in zip(self.outputs, (u, v), strict=True))  # fmt: skip
        if whole is not None:
            far = whole.far.float()[:, None]
            u, v = (own + far * _mix(features, straight)
                    for own, straight in zip((u, v), self.direct_far, strict=True))  # fmt: skip
            if self.shape.once:
                near, more = self.never
                u, v = (own - whole.had * (near[n] + far * more[n]) for n, own in enumerate((u, v)))
        return u + self._place_numbers(mask.shape[1]), v

    def pooled(self, histories: Histories, turns: Tensor) -> Tensor:
        """What it reads of histories alone; see :meth:`HistoryReader.pool`.

        Args:
            turns: ``(B,)`` lines that stand before the newest one.
        """
        return self.reader.pool(histories, turns, self._tables()[0])

    def _look(self, asked: NetInputs, past: Tensor) -> Tensor:
        """``(B, d)`` the taste of users whose whole history is known."""
        whole = asked.whole
        assert whole is not None
        pooled = whole.histories
        if not isinstance(pooled, Tensor):
            pooled = self.reader.pool(pooled, (whole.taken != PAD).sum(dim=1), past)
        return self.reader.look(pooled, whole, asked.profiles, past)

    def _followed(self, asked: NetInputs) -> Tensor:
        """``(B, K)`` how much each option is what the memory's lines are followed by; no line
        speaks for itself."""
        (share,) = self._lag_weights(asked.memory)[:1]
        taste = embedding_bag(asked.memory, self.ahead, mode="sum", per_sample_weights=share)
        match = (embedding(asked.slates, self.behind, PAD) * taste[:, None, :]).sum(dim=-1)
        row, place, line = _repeats(asked)
        items = asked.slates[row, place]
        added = share[row, line] * (self.ahead[items] * self.behind[items]).sum(dim=-1)
        own = torch.zeros_like(match).view(-1).index_add(0, row * match.shape[1] + place, added)
        speak = (asked.memory[:, :1] != PAD) & (asked.slates != PAD)
        match = match - own.view(match.shape)
        return torch.where(speak, (match.clamp(min=0) + self.floor).log(), 0.0)

    def _lag_weights(self, memory: Tensor) -> Tensor:
        """``(G, B, L)`` of the lines of the memory; each row sums to one, or is zero."""
        lines = self.shape.lines
        seen = torch.ones(lines + 1, lines).tril(-1).bool()
        shares = torch.softmax(self.lags[:, None, :].masked_fill(~seen, _FAR), dim=-1)
        return (shares * seen)[:, (memory != PAD).sum(dim=1)]

    def _taste(self, asked: NetInputs, past: Tensor, weights: Tensor) -> Tensor:
        tastes = [
            embedding_bag(asked.memory, table, mode="sum", per_sample_weights=share)
            for table, share in zip(past, weights, strict=True)
        ]
        taste = torch.cat(tastes, dim=1)
        if asked.profiles.shape[1] == 0:
            return taste
        known = (asked.profiles != PAD).float()
        return taste + embedding_bag(
            asked.profiles, self.profile, mode="sum", per_sample_weights=known
        )

    def _own_lines(
        self, asked: NetInputs, past: Tensor, offers: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weight ``(B, K)`` of an option's own lines in the memory, and what they add to its
        matches ``(B, K, G)``."""
        groups, shape = self.shape.tastes, asked.slates.shape
        row, place, line = _repeats(asked)
        share = weights[:, row, line].T  # (R, G)
        vectors = past[:, asked.slates[row, place]].transpose(0, 1)  # (R, G, d / G)
        offered = offers[row, place].view(len(row), groups, vectors.shape[-1])
        added = share * (vectors * offered).sum(dim=-1)
        at = row * shape[1] + place
        again = offers.new_zeros(shape.numel()).index_add(0, at, share.sum(dim=-1))
        own = offers.new_zeros(shape.numel(), groups).index_add(0, at, added)
        return again.view(shape), own.view(*shape, groups)

    def _place_numbers(self, width: int) -> Tensor:
        return self.places[torch.arange(width).clamp(max=PLACES)] * (torch.arange(width) < PLACES)

    def _reluctance(self, asked: NetInputs, mask: Tensor) -> Tensor:
        """w, ``(B,)``."""
        if not self.shape.hidden:
            return self.outside.expand(len(mask))
        length = (mask.sum(dim=1).float() / 5.0).log1p()
        features = [*asked.session.unbind(dim=1), length]
        inner = _layer(features, self.session, self.session_bias)
        return self.outside + (inner * self.session_output).sum(dim=-1)


def _repeats(asked: NetInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Row, place and line wherever an option is in the memory already; few are."""
    same = asked.slates[:, :, None] == asked.memory[:, None, :]
    row, place, line = same.nonzero(as_tuple=True)
    real = asked.slates[row, place] != PAD
    return row[real], place[real], line[real]


def session_features(turns: IntArray, misses: IntArray, lines: IntArray) -> Float32Array:
    """``(B, SESSION - 1)`` on comparable scales; the length of the list makes the last one.

    Args:
        turns: lists seen in the session.
        misses: how many of the last ones in a row ended with *none of these*.
        lines: of the memory.
    """
    columns = (np.log1p(turns), np.minimum(misses, 5) / 2.0, np.log1p(lines) / 2.0)
    return np.stack(columns, axis=1).astype(np.float32)


def net_of(shape: NetShape, weights: Mapping[str, Tensor]) -> SurrogateNet:
    """A network with these weights, those of :meth:`SurrogateNet.merged`.

    Raises:
        RuntimeError: names or shapes that do not fit.
    """
    net = SurrogateNet(shape, np.zeros(shape.n_items + 1))
    net.load_state_dict(dict(weights))
    return net


def _layer(features: list[Tensor], weights: Tensor, bias: Tensor) -> Tensor:
    """``relu(features @ weights + bias)``, added up feature by feature."""
    total = features[0][..., None] * weights[0] + bias
    for values, row in zip(features[1:], weights[1:], strict=True):
        total = torch.addcmul(total, values[..., None], row)
    return torch.relu(total)


def _mix(features: list[Tensor], weights: Tensor) -> Tensor:
    total = features[0] * weights[0]
    for values, weight in zip(features[1:], weights[1:], strict=True):
        total = total + values * weight
    return total


def _grouped_sum(products: Tensor, groups: int) -> Tensor:
    """``(B, K, d) -> (B, K, groups)``."""
    width = products.shape[2] // groups
    return products.view(*products.shape[:2], groups, width).sum(dim=-1)

"""Hyperparameters of the learning agents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from usermirror_gym.configs.settings import Positive, Settings

Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
Discount = Annotated[float, Field(ge=0, lt=1)]


class BanditSettings(Settings):
    """Of :class:`~usermirror_gym.agents.learners.bandits.LinUCBAgent` and its sister."""

    d: Positive = 64
    """Item factors."""
    width: AtLeast0 = 0.3
    """LinUCB: standard deviations of the bonus (alpha).  Thompson: of the draw (v)."""
    ridge: Above0 = 1.0
    """Precision of the prior."""
    half_life: Above0 = 10.0
    """After so many later items a line of the history counts half."""
    history: Positive = 30
    """Newest items of the history that count."""


class TorchSettings(Settings):
    """Shared by the agents that are trained by gradients."""

    d: Positive = 64
    """Item factors."""
    history: Positive = 20
    """Newest items of the history that count."""
    learning_rate: Above0 = 2e-3
    item_learning_rate: AtLeast0 = 1e-4
    """Of the numbers that belong to single items: each is seen rarely, and was good before."""
    batch_size: Positive = 256
    epochs: Positive = 2
    """Times that the experience of an iteration is gone through."""
    discount: Discount = 0.5
    """Gamma, per list."""


class SlateQSettings(TorchSettings):
    """Of :class:`~usermirror_gym.agents.learners.slateq.SlateQAgent`."""

    replay: Positive = 20_000
    """User-steps that are remembered; the newest."""
    temperature: AtLeast0 = 0.5
    """Of the noise on utilities by which slates are explored in training."""
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    """By how much the target network follows after each gradient step."""


class ReinforceSettings(TorchSettings):
    """Of :class:`~usermirror_gym.agents.learners.reinforce.ReinforceAgent`."""

    memory: Positive = 2
    """Iterations whose experience is learned from; that of earlier ones is off-policy."""
    cap: Above0 = 5.0
    """Largest importance weight."""
    entropy: AtLeast0 = 0.0
    """Weight of the policy's entropy in the objective."""


class PPOSettings(Settings):
    """Of :class:`~usermirror_gym.agents.learners.ppo.PPOAgent`; passed on to Stable-Baselines3."""

    d: Positive = 32
    """Unused item factors of what all learning agents keep; small."""
    source: str = "ItemKNN"
    """Whose shortlist is re-ranked: Pop, a RecBole model, or the folder of a trained agent."""
    trust: AtLeast0 = 4.0
    """Logit by which slot k prefers the source's k-th candidate at the beginning."""
    shortlist: Positive = 50
    """Candidates."""
    learning_rate: Above0 = 3e-4
    batch_size: Positive = 500
    epochs: Positive = 10
    discount: Discount = 0.5
    entropy: AtLeast0 = 0.0
    hidden: Positive = 64
    """Units of each of two hidden layers."""

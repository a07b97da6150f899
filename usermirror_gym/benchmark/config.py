"""The settings of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from usermirror_gym.configs.session import SessionConfig, WorldConfig
from usermirror_gym.configs.settings import AtLeast0, Positive
from usermirror_gym.errors import ConfigError

DEFAULT_AGENTS = (
    "Random", "Pop", "ItemKNN", "EASE", "BPR", "LightGCN", "MultiVAE", "GRU4Rec",
)  # fmt: skip


@dataclass(frozen=True)
class BenchmarkConfig(SessionConfig, WorldConfig):
    """What to run; two runs with equal settings give equal episodes."""

    agents: tuple[str, ...] = DEFAULT_AGENTS
    """Comma-separated: Random, Pop, Oracle, LinUCB, Thompson, any RecBole model, the folder of a
    trained agent (usermirror train-agent), or your own (module:Name)."""
    users: Positive = 24
    """Episodes per agent, each with another user."""
    steps: Positive = 8
    """Most lists per episode."""
    fidelity_scenes: AtLeast0 = 300
    """Real choices in the check of the simulator; 0 leaves it out."""
    batch_size: Positive = 24
    """Episodes side by side; does not change the result."""
    seed: int = 0
    """Same seed, same result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fidelity_scenes == 1:
            raise ConfigError("fidelity_scenes must be 0 or at least 2, got 1")
        if not self.agents:
            raise ConfigError("name at least one agent")
        folded = [a.casefold() for a in self.agents]
        if twice := {a for a in self.agents if folded.count(a.casefold()) > 1}:
            raise ConfigError(f"agents named twice: {sorted(twice)}")

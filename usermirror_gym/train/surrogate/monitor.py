"""Is the surrogate still to be trusted?  The lists that an agent shows, put before its teacher.

A surrogate was near its teacher on the lists that it was distilled on.  An agent that is trained in
it looks for lists that the surrogate thinks well of, and what it gets wrong is found first: the
simulated return rises where that of the teacher does not (reward hacking; for learned reward models
Gao, Schulman & Hilton, ICML 2023).  The monitor takes a fair sample of the scenes of the training,
asks the teacher about them at every evaluation, and compares.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from usermirror_gym.envs import World
from usermirror_gym.errors import ConfigError
from usermirror_gym.files import read_json
from usermirror_gym.foreign import MASK
from usermirror_gym.measures.bootstrap import UserBootstrap
from usermirror_gym.progress import Display
from usermirror_gym.simulators import make_simulator
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.checkpoint import check_foreign, is_own
from usermirror_gym.simulators.recording import RecordingSimulator
from usermirror_gym.simulators.surrogate.surrogate import (
    SURROGATE_WEIGHTS,
    SurrogateSimulator,
    read_surrogate,
    write_surrogate,
)
from usermirror_gym.train.agent.config import RLConfig
from usermirror_gym.train.surrogate.answers import Answers, ask, read_answers, write_answers
from usermirror_gym.train.surrogate.card import FACTS_FILE
from usermirror_gym.train.surrogate.distil import redistil
from usermirror_gym.train.surrogate.report import Agreement

_RESAMPLES = 500
_ANSWERS = "answers.npz"
Row = dict[str, Any]


_LEAST_KL = 1e-3
"""Nats.  Below it two simulators are the same to whoever trains in them: of a surrogate that is its
teacher but for rounding, three times the divergence would be noise."""


@dataclass(frozen=True)
class Trust:
    """From where on a surrogate is not trusted any more.

    Attributes:
        kl: most nats from surrogate to teacher, mean over the sampled lists.
        agreement: smallest share of lists with the same likeliest option.
        gap: most that the worth of a list, ``1 - P(none of these)``, may be wrong on average.
    """

    kl: float = 0.1
    agreement: float = 0.8
    gap: float = 0.05

    @classmethod
    def of(cls, folder: str | Path) -> Trust:
        """What a surrogate's own report allows: three times its divergence on lists that it did
        not learn from, but a thousandth of a nat in any case, and ten points less agreement; the
        defaults where there is no report."""
        path = Path(folder) / FACTS_FILE
        if not path.is_file():
            return cls()
        own = read_json(path)["report"]["new lists"]["all"]
        kl = max(3.0 * own["kl"]["mean"], _LEAST_KL)
        return cls(kl=kl, agreement=max(own["agreement"]["mean"] - 0.1, 0.0))

    def broken_by(self, row: Row) -> list[str]:
        """Which bounds the row of a check breaks, in words."""
        found = []
        if row["monitor_kl"] > self.kl:
            found.append(f"KL {row['monitor_kl']:.3f} above {self.kl:.3f}")
        if row["monitor_agreement"] < self.agreement:
            found.append(f"agreement {row['monitor_agreement']:.0%} below {self.agreement:.0%}")
        if abs(row["monitor_gap"]) > self.gap:
            kind = "more" if row["monitor_gap"] > 0 else "less"
            found.append(
                f"lists are worth {abs(row['monitor_gap']):.3f} {kind} to it than to its teacher"
            )
        return found


class FidelityMonitor:
    """A :class:`~usermirror_gym.train.agent.run.Hook`: samples, asks, compares, and says so.

    Each row of the curve gets ``monitor_kl`` (nats), ``monitor_agreement``, ``monitor_gap`` (what
    the sampled lists are worth to the surrogate, less what they are worth to the teacher; with the
    ends of its 95 % interval over users), ``monitor_trusted`` and ``monitor_redistilled``.

    Args:
        surrogate: the simulator of the training.
        teacher: whom it imitates; asked about ``sample`` lists an evaluation.
        folder: where re-distilled surrogates are kept; the run's.
        trust: the bounds.
        sample: lists of a check.
        renew: teach the surrogate the sampled lists when it is no longer trusted, and remind it
            of those of earlier checks.  The training goes on in the same object; what was returned
            before and after is not the same user's.
        seed: of sample and order.
        display: says when trust ends.

    Raises:
        ConfigError: a sample of fewer than two lists.
    """

    def __init__(
        self,
        surrogate: SurrogateSimulator,
        teacher: UserSimulator,
        folder: str | Path,
        *,
        trust: Trust | None = None,
        sample: int = 256,
        renew: bool = False,
        seed: int = 0,
        display: Display | None = None,
    ) -> None:
        if sample < 2:
            raise ConfigError(f"the monitor's sample is {sample}: use 2 lists or more")
        self.surrogate, self.teacher, self.folder = surrogate, teacher, Path(folder) / "surrogates"
        self.trust = trust or Trust()
        self.renew, self.seed = renew, seed
        self._before: Answers | None = None
        self._asked = RecordingSimulator(surrogate, sample, seed)
        self._display = display or Display(quiet=True)

    def wrap(self, world: World, iteration: int) -> World:
        """The world with an observed simulator; a training that goes on has the surrogate that it
        had after ``iteration``."""
        self._asked.clear()
        for place in self._kept():
            if int(place.name) > iteration:  # of a future that did not come about
                shutil.rmtree(place)
                continue
            self._remember(read_answers(place / _ANSWERS))
            if (place / SURROGATE_WEIGHTS).is_file():
                self.surrogate.net, _ = read_surrogate(place)
        return replace(world, simulator=self._asked)

    def on_evaluation(self, row: Row) -> Row:
        """What the check of the lists since the last evaluation says."""
        scenes = self._asked.scenes()
        self._asked.clear()
        lines = self.surrogate.net.shape.lines
        fresh = ask(self.teacher, scenes, lines, "training", self.surrogate.past)
        found = self._compare(fresh)
        broken = self.trust.broken_by(found)
        found["monitor_trusted"] = not broken
        if broken:
            self._display.say(
                f"iteration {row['iteration']}: the surrogate is not to be trusted on the lists "
                f"that are shown now ({'; '.join(broken)})"
            )
        found["monitor_redistilled"] = bool(broken) and self.renew
        if self.renew:
            place = self.folder / f"{row['iteration']:06d}"
            if broken:
                self._renew(fresh, place)
            write_answers(place / _ANSWERS, fresh)  # last: now the check is over
            self._remember(fresh)
        return found

    def _compare(self, fresh: Answers) -> Row:
        agreement = Agreement.of(fresh.probs, self.surrogate.answer(fresh.questions))
        gaps = (agreement.values[1] - agreement.values[0])[:, None]
        (gap,) = UserBootstrap(fresh.questions.users, _RESAMPLES, self.seed).intervals(gaps)
        return {
            "monitor_lists": len(fresh),
            "monitor_kl": float(agreement.kl.mean()),
            "monitor_agreement": float(agreement.same.mean()),
            "monitor_gap": gap.mean,
            "monitor_gap_low": gap.low,
            "monitor_gap_high": gap.high,
        }

    def _renew(self, fresh: Answers, place: Path) -> None:
        redistil(self.surrogate, self.teacher, fresh, replay=self._before, seed=self.seed)
        # As it is stored, so that a training that goes on has the very same weights.
        write_surrogate(place, self.surrogate.net, self.surrogate.facts)
        self.surrogate.net, _ = read_surrogate(place)

    def _remember(self, fresh: Answers) -> None:
        self._before = fresh if self._before is None else Answers.joined([self._before, fresh])

    def _kept(self) -> list[Path]:
        """Of checks that were ended, oldest first."""
        return sorted(p.parent for p in self.folder.glob(f"[0-9]*/{_ANSWERS}"))


def monitor_of(config: RLConfig, world: World, folder: Path, display: Display) -> FidelityMonitor:
    """The monitor of a training in a surrogate, in whose folder teacher and bounds are found.

    Raises:
        ConfigError: the surrogate has no report, so that nobody knows its teacher.
        UserMirrorError: what making the teacher raises.
    """
    surrogate = world.simulator
    assert isinstance(surrogate, SurrogateSimulator)
    home = surrogate.folder
    if home is None or not (home / FACTS_FILE).is_file():
        raise ConfigError(
            f"the surrogate has no {FACTS_FILE} beside it (in {home}), so that its teacher is not "
            "known: take a folder of train-surrogate, or train without a monitor (--no-monitor)"
        )
    recipe = read_json(home / FACTS_FILE)["recipe"]
    options = dict(recipe["teacher_options"])
    if not is_own(home / FACTS_FILE):
        told = {"checkpoint": recipe["teacher"], **options}
        check_foreign(told, home / FACTS_FILE, "Train without a monitor (--no-monitor).")
    if not surrogate.offers_outside:
        options["outside_option"] = False
    if MASK in str(options):
        raise ConfigError(
            f"the teacher in {home} was asked with a key or password among its settings, which is "
            "not kept: set the variable of key_variable (OPENAI_API_KEY) and distil anew without "
            "it, or train without a monitor (--no-monitor)"
        )
    teacher = make_simulator(recipe["teacher"], world.split, **options)
    return FidelityMonitor(
        surrogate, teacher, folder, trust=Trust.of(home), sample=config.monitor_lists,
        renew=config.redistil, seed=config.seed, display=display,
    )  # fmt: skip

"""How the released prompts are laid out, read from the train set: no word of it is ours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from usermirror_gym.errors import DataError

LETTERS = ascii_uppercase
Gaps = tuple[int, int, int]
"""Line breaks after profile, history and list."""


@dataclass(frozen=True)
class PromptFrame:
    """System text, the headings of the user's message, and the line breaks between its parts.

    Use ``dataclasses.replace(frame, system=...)`` to ask with another system text.
    """

    system: str
    headings: tuple[str, str, str]
    """Above the profile, the history and the list."""
    gaps: dict[str, Gaps]
    """By data set; the key "" holds the most frequent ones."""

    @classmethod
    def of(cls, prompts: Iterable[tuple[str, str, str]]) -> PromptFrame:
        """Learn from train prompts.

        Args:
            prompts: data set, system text and user's message of each.

        Raises:
            DataError: the prompts do not share one system text and three headings.
        """
        prompts = list(prompts)
        systems = Counter(system for _, system, _ in prompts)
        if len(systems) != 1:
            raise DataError(
                f"{len(prompts)} train prompts have {len(systems)} different system texts; one is "
                "needed. Give the train set with its texts, or make a PromptFrame by hand."
            )
        headings = _headings([user for _, _, user in prompts])
        counts: dict[str, Counter[Gaps]] = defaultdict(Counter)
        for dataset, _, user in prompts:
            gaps = _gaps(user, headings)
            counts[dataset][gaps] += 1
            counts[""][gaps] += 1
        usual = {dataset: count.most_common(1)[0][0] for dataset, count in counts.items()}
        return cls(next(iter(systems)), headings, usual)

    def user_message(
        self, profile: str, history: str, actions: Sequence[str], dataset: str = ""
    ) -> str:
        """The user's message about one list, its options lettered from A on.

        Args:
            dataset: whose line breaks to use; those of most prompts if it is not known.
        """
        listing = "\n".join(f"[{a}] {text}" for a, text in zip(LETTERS, actions, strict=False))
        parts = zip(
            self.headings,
            (profile, history, listing),
            self.gaps.get(dataset, self.gaps[""]),
            strict=True,
        )
        return "".join(f"{head}\n{text.rstrip(chr(10))}{chr(10) * n}" for head, text, n in parts)


def _headings(users: list[str]) -> tuple[str, str, str]:
    """The lines with a leading ``#`` that all messages have."""
    first = [line for line in users[0].split("\n") if line.startswith("#")]
    common = set(first).intersection(*(set(user.split("\n")) for user in users))
    found = tuple(dict.fromkeys(line for line in first if line in common))
    if len(found) != 3 or not all(user.startswith(found[0] + "\n") for user in users):
        raise DataError(
            f"the train prompts share the headings {list(found)}; three are needed, the first of "
            "them on the first line (profile, history, list)"
        )
    return found


def _gaps(user: str, headings: tuple[str, str, str]) -> Gaps:
    """The line breaks at the end of each part of a message."""
    second = user.find(f"\n{headings[1]}\n")
    third = user.rfind(f"\n{headings[2]}\n")
    if not 0 <= second < third:
        raise DataError(f"a train prompt has the headings {list(headings)} in another order")
    ends = (user[: second + 1], user[: third + 1], user)
    starts = (len(headings[0]) + 1, second + len(headings[1]) + 2, third + len(headings[2]) + 2)
    parts = (text[start:] for text, start in zip(ends, starts, strict=True))
    profile, history, listing = (len(part) - len(part.rstrip("\n")) for part in parts)
    return profile, history, listing

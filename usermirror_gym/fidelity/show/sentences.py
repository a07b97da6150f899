"""What the numbers of a fidelity card say, in plain sentences that claim no more than they show.

*Beats* and *loses to* are used only where a 95 % interval of the paired difference excludes zero;
everything else is *not told apart*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from usermirror_gym.report.text import BETTER, OPEN, WORSE, interval, listing, points, standing

NO_CHANGE = 5e-4
"""A smaller change of a probability would be printed as zero."""
_ROUNDING = 1e-5
"""A mean change of a probability that batches and single precision explain."""
_RANK = {BETTER: 0, OPEN: 1, WORSE: 2}
_GROUPS = (
    ("base", "the untrained model"), ("control", "the controls"),
    ("classic", "the classic choosers"), ("reference", "the upper reference"),
)  # fmt: skip


def verdict(card: Mapping[str, Any]) -> list[str]:
    """Sentences for the content of ``card.json``, the most important first."""
    sentences = [_level(card)]
    sentences += [_against(card, kind, words) for kind, words in _GROUPS]
    sentences += [
        _history(card), _calibration(card), _outside(card), _ladder(card), _order(card),
        _positions(card), _probes(card),
    ]  # fmt: skip
    return [sentence for sentence in sentences if sentence]


def pair_standing(pair: Mapping[str, Any]) -> tuple[str, str]:
    """How the chooser stands in accuracy and in log-loss."""
    return standing(pair["accuracy"]), standing(pair["log_loss"], lower_is_better=True)


def own(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The chooser that the card is about."""
    return next(c for c in card["choosers"] if c["kind"] == "simulator")


def pairs_of(card: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """The simulator against every chooser of a kind, in the order of the card."""
    kinds = {chooser["name"]: chooser["kind"] for chooser in card["choosers"]}
    return [pair for pair in card["paired"] or () if kinds.get(pair["against"]) == kind]


def _level(card: Mapping[str, Any]) -> str:
    forced, scenes = own(card)["overall"]["forced"], card["scenes"]
    return (
        f"On {scenes['with_target']:,} real choices it names the right item with accuracy "
        f"{points(forced['accuracy'])} % and has log-loss {interval(forced['log_loss'], '.3f')}."
    )


def _against(card: Mapping[str, Any], kind: str, words: str) -> str:
    """One sentence about all choosers of a kind: who is beaten, and in full who is not."""
    pairs = pairs_of(card, kind)
    if not pairs:
        return ""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for pair in pairs:
        groups.setdefault(pair_standing(pair), []).append(pair)
    parts = [
        _outcome(standings, groups[standings])
        for standings in sorted(groups, key=lambda s: (_RANK[s[1]], _RANK[s[0]]))
    ]
    return f"Against {words}: it {'; it '.join(parts)}."


def _outcome(standings: tuple[str, str], pairs: Sequence[Mapping[str, Any]]) -> str:
    accuracy, loss = standings
    named = with_numbers(pairs)
    if accuracy == loss == BETTER:
        return f"beats {_named(pairs)} in accuracy and log-loss{_nearest(pairs)}"
    if accuracy == loss == WORSE:
        return f"loses to {named} in accuracy and log-loss"
    if accuracy == loss:
        return f"is not told apart from {named}"
    if OPEN not in standings:
        better, worse = ("accuracy", "log-loss") if accuracy == BETTER else ("log-loss", "accuracy")
        return f"has the better {better} but the worse {worse} than {named}"
    which, other = ("log-loss", "accuracy") if loss else ("accuracy", "log-loss")
    verb = "beats" if BETTER in standings else "loses to"
    return f"{verb} {named} in {which} only ({other} is not told apart)"


def with_numbers(pairs: Sequence[Mapping[str, Any]]) -> str:
    """One or two with their differences; of more, their names and the farthest in log-loss."""
    if len(pairs) <= 2:
        return listing([_difference(pair) for pair in pairs])
    far = max(pairs, key=lambda pair: abs(pair["log_loss"]["mean"]))
    return f"{listing([pair['against'] for pair in pairs])} (farthest: {_difference(far)})"


def _named(pairs: Sequence[Mapping[str, Any]]) -> str:
    return listing([pair["against"] if len(pairs) > 1 else _difference(pair) for pair in pairs])


def _nearest(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Of several that are beaten, the one that is beaten by least in log-loss."""
    if len(pairs) == 1:
        return ""
    return f"; nearest comes {_difference(max(pairs, key=lambda p: p['log_loss']['mean']))}"


def _difference(pair: Mapping[str, Any]) -> str:
    """The chooser's name with both differences to it."""
    return (
        f"{pair['against']} ({points(pair['accuracy'], sign=True)} points, "
        f"{interval(pair['log_loss'], '.3f', sign=True)} nats)"
    )


def _history(card: Mapping[str, Any]) -> str:
    gap = card["history"]
    if not gap:
        return ""
    accuracy = standing(gap["accuracy"])
    loss = standing(gap["log_loss"], lower_is_better=True)
    numbers = (
        f"own minus another user's history: {points(gap['accuracy'], sign=True)} points of "
        f"accuracy, {interval(gap['log_loss'], '.3f', sign=True)} nats of log-loss"
    )
    if accuracy == loss == BETTER:
        return f"It reads the history ({numbers})."
    if WORSE in (accuracy, loss) and BETTER not in (accuracy, loss):
        return f"Another user's history serves it better than the user's own ({numbers})."
    if BETTER in (accuracy, loss) and WORSE in (accuracy, loss):
        better, worse = ("accuracy", "log-loss") if accuracy == BETTER else ("log-loss", "accuracy")
        return (
            f"It reads the history, but its own history gives it the better {better} and the worse "
            f"{worse} ({numbers})."
        )
    if BETTER in (accuracy, loss):
        seen, open_ = ("accuracy", "log-loss") if accuracy == BETTER else ("log-loss", "accuracy")
        return f"It reads the history by its {seen}, not shown by its {open_} ({numbers})."
    return f"It is not shown to read the history ({numbers})."


def _calibration(card: Mapping[str, Any]) -> str:
    found = own(card)["calibration"]
    if not found or found["ece"]["mean"] is None:
        return ""
    total = sum(row["n"] for row in found["bins"])
    said = sum(row["confidence"] * row["n"] for row in found["bins"]) / total
    right = sum(row["accuracy"] * row["n"] for row in found["bins"]) / total
    return (
        f"Its likeliest item is given {said:.1%} on average and is right {right:.1%} of the time; "
        f"expected calibration error {interval(found['ece'], '.3f')}{_chance(found)}."
    )


def _chance(calibration: Mapping[str, Any]) -> str:
    """What of the error finitely many lists explain."""
    noise = calibration.get("if_calibrated")
    if not noise:
        return ""
    more = calibration["ece"]["mean"] > noise["high"]
    verb = "more than chance explains" if more else "no more than chance explains"
    return f", {verb} (up to {noise['high']:.3f} if it were calibrated)"


def _outside(card: Mapping[str, Any]) -> str:
    outside = card["outside"]
    if not outside or not outside["auc"] or outside["auc"]["mean"] is None:
        return ""
    auc = outside["auc"]
    above = auc["low"] is not None and auc["low"] > 0.5
    below = auc["high"] is not None and auc["high"] < 0.5
    words = "tells" if above else "is wrong about" if below else "is not shown to tell"
    return (
        f"By its probability of none of these it {words} lists without the true item from lists "
        f"with it: AUC {interval(auc, '.3f')}."
    )


def _ladder(card: Mapping[str, Any]) -> str:
    steps = (card["outside"] or {}).get("ladder") or []
    if len(steps) < 2:
        return ""
    shown = ", ".join(f"{s['lists']} {interval(s['p_none'], '.1f', scale=100)} %" for s in steps)
    falls = [fall(before, after) for before, after in pairwise(steps)]
    lead = f"Mean probability of none of these: {shown}"
    if all(own_fall == BETTER for own_fall in falls):
        return f"{lead}. It falls at every step to better lists."
    found = []
    for kind, words in (
        (BETTER, "falls"), (OPEN, "is not shown to fall"), (WORSE, "rises")
    ):  # fmt: skip
        names = [
            f"from {before['lists']} to {after['lists']}"
            for (before, after), own_fall in zip(pairwise(steps), falls, strict=True)
            if own_fall == kind
        ]
        found += [f"{words} {listing(names)}"] if names else []
    return f"{lead}. It {', '.join(found)}."


def fall(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Whether the second of two steps of the ladder is shown to have the smaller probability: by
    the paired interval if there is one, else only where the two intervals lie apart."""
    if after.get("fall"):
        return standing(after["fall"])
    a, b = before["p_none"], after["p_none"]
    if None in (a["low"], a["high"], b["low"], b["high"]):
        return OPEN
    return BETTER if a["low"] > b["high"] else WORSE if a["high"] < b["low"] else OPEN


def _order(card: Mapping[str, Any]) -> str:
    order = card["order"]
    if not order or order["mean_change"]["mean"] is None:
        return ""
    change, flips = order["mean_change"], order["argmax_flips"]
    if change["mean"] < _ROUNDING and not flips["mean"]:
        return "The order of the list changes nothing."
    small = change["mean"] < NO_CHANGE
    shown = f"{change['mean']:.0e}" if small else interval(change, ".3f")
    return (
        f"Permuting the list changes the probability of an option by {shown} on average, and its "
        f"likeliest option in {points(flips)} % of the lists."
    )


def _positions(card: Mapping[str, Any]) -> str:
    shares = own(card)["positions"]
    if not shares:
        return ""
    even = 1 / len(shares)
    worst = max(range(len(shares)), key=lambda i: abs(shares[i]["mean"] - even))
    gap = shares[worst]["mean"] - even
    if abs(gap) < NO_CHANGE:
        return "It gives all places of the list the same."
    return (
        f"The mean probability of each place of the list stays within {100 * abs(gap):.1f} "
        f"points of an even share, {100 * even:.1f} % (farthest: number {worst + 1}, "
        f"{points(shares[worst])} %)."
    )


def _probes(card: Mapping[str, Any]) -> str:
    probes = card["probes"] or []
    if not probes:
        return ""
    rising = [p for p in probes if standing(p["change"]) == BETTER]
    if not rising:
        return f"None of {len(probes)} attacks on the text is shown to raise the probability."
    names = [f"{p['name']} ({points(p['change'], sign=True)} points)" for p in rising]
    verb = "raise" if len(rising) > 1 else "raises"
    return f"Of {len(probes)} attacks on the text, {listing(names)} {verb} the probability."

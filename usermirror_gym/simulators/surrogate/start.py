"""Where the student of a session readout begins: at what its teacher knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from usermirror_gym.errors import ConfigError
from usermirror_gym.simulators.base import UserSimulator
from usermirror_gym.simulators.session.session import NEVER, ItemNumbers, SessionSimulator
from usermirror_gym.simulators.session.session_net import GAIN
from usermirror_gym.simulators.surrogate.surrogate import SurrogateSimulator
from usermirror_gym.simulators.surrogate.surrogate_net import NetShape, SurrogateNet


def start_as(student: SurrogateSimulator, teacher: UserSimulator) -> bool:
    """Give a network with ``history`` the vectors of a session readout and its way of reading.

    Blocks of an LLM, if the teacher has some, are not copied: what they add is left to learn.

    Args:
        student: learned nothing yet; its network is changed in place.
        teacher: whose student it shall be.

    Returns:
        whether that is possible: the teacher is a session readout, and the network reads histories.

    Raises:
        ConfigError: its sizes are not those of the teacher, or its users have other profiles.
    """
    net = student.net
    if not isinstance(teacher, SessionSimulator) or not net.shape.history:
        return False
    numbers, head, own = teacher.tables(), teacher.head, net.reader.shape
    _check_sizes(net.shape, teacher, numbers)
    if student.facts.profiles != head.profiles:
        raise ConfigError(
            "the teacher was trained on users with other profiles than these data have, and its "
            "numbers mean nothing here: set network.items=none, which learns all of them, and more "
            "epochs at a higher rate"
        )
    follows = numbers.follow is not None
    with torch.no_grad():
        net.reader.load_state_dict(head.net.state_dict())
        wide = GAIN * torch.from_numpy(numbers.past)
        net.past.copy_(wide.view(len(wide), own.tastes, -1).transpose(0, 1))
        net.option.copy_(torch.from_numpy(numbers.option))
        net.outputs.zero_()
        net.session_output.zero_()
        if numbers.follow is not None and head.follow is not None:
            _start_follow(net, numbers.follow, head.follow)
        _start_weights(net, teacher.weights, numbers.general, follows)
    student.net = net  # another one now, to whoever asks for its name
    return True


def _check_sizes(shape: NetShape, teacher: SessionSimulator, numbers: ItemNumbers) -> None:
    theirs, follow = teacher.head.net.shape, teacher.head.follow
    wanted = {
        "dim": theirs.dim, "tastes": theirs.tastes,
        "history": theirs.lines, "once": teacher.takes_once,
        "follow": 0 if numbers.follow is None else numbers.follow[0].shape[1],
        "lines": shape.lines if follow is None else max(len(follow.lags), shape.lines),
    }  # fmt: skip
    wrong = {name: value for name, value in wanted.items() if getattr(shape, name) != value}
    if wrong:
        told = ", ".join(f"network.{name}={str(value).lower()}" for name, value in wrong.items())
        raise ConfigError(
            "the surrogate cannot begin with the numbers of its teacher, which has other sizes: "
            f"set {told}, or learn all from random numbers (network.items=none)"
        )


def _start_follow(net: SurrogateNet, tables: tuple[Any, Any], follow: Any) -> None:
    net.ahead.copy_(torch.from_numpy(tables[0]))
    net.behind.copy_(torch.from_numpy(tables[1]))
    net.floor.fill_(follow.floor)
    net.lags.fill_(-30.0)  # of lines that the teacher does not read
    n = min(len(follow.lags), net.lags.shape[1])
    net.lags[0, :n] = torch.from_numpy(follow.lags[:n])


def _start_weights(net: SurrogateNet, weights: Any, general: np.ndarray, follows: bool) -> None:
    """Of which item, and of whether any, near and far."""
    for part, (match, *others) in enumerate(weights.coefficients):
        # The bias of the net comes first, then what follows what, then the features of appeal.
        followed = others.pop(1) if follows else 0.0
        table = net.general_far if part else net.general
        table.copy_(torch.from_numpy(general @ np.array(others[: general.shape[1]])))
        straight = net.direct_far if part else net.direct
        straight.zero_()
        for row, (of_match, of_general) in enumerate(
            ((1.0, 1.0), (weights.value_match, weights.value_general))
        ):
            straight[row, : net.shape.tastes] = of_match * match
            column = -1 - follows if part else net.shape.tastes
            straight[row, column] = of_general
            if follows:
                straight[row, -1] = of_general * followed
            net.never[part, row] = NEVER * of_match * match
    if weights.outside_utility is not None:
        net.outside.fill_(weights.outside_utility)

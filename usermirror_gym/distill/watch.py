"""Stops a run whose model answers nothing, before it has gone through every scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from usermirror_gym.errors import EngineError

ENOUGH = 64
"""After so many failures without a single success nothing better is to be expected."""


def stop_if_dead(model_id: str, errors: Sequence[str | None], probe: Callable[[], None]) -> None:
    """After a call in which every prompt failed: is it the prompts, or the engine?

    Args:
        errors: what became of each prompt of the call; ``None`` is a success.
        probe: asks the engine a harmless question, and raises EngineError if it fails.

    Raises:
        EngineError: the harmless question fails too.
    """
    if not errors or None in errors:
        return
    try:
        probe()
    except EngineError as error:
        raise EngineError(
            f"{model_id} answers nothing at the moment: {errors[0]}. What was written before is "
            "kept; the same command goes on from there."
        ) from error


def stop_if_hopeless(model_id: str, succeeded: int, failed: int, last: str | None) -> None:
    """Compare successes and failures since the run was begun.

    Raises:
        EngineError: no success, and too many failures to hope for one.
    """
    if succeeded == 0 and failed >= ENOUGH:
        raise EngineError(
            f"none of {failed} answers of {model_id} could be used; the last failure: {last}. "
            "Look into the journal, then change the settings (more max_tokens, require='text') or "
            "the model."
        )

"""How many threads torch uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block torch works in one thread.

    For small networks: threads wait for each other longer than they work, and sums that several
    threads add up come out in another order each time, so that equal seeds would give results that
    differ in the last digits.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""Waiting for what happens soon, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(question: Callable[[], T], *, timeout: float = 10.0, what: str = "") -> T:
    """Ask until the answer is true, and give it.

    Args:
        question: asked every 50 ms; an AssertionError counts as "not yet".
        what: for the message when the time is over.

    Raises:
        AssertionError: it never was true; names the last answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer: T | None = question()
            failure = f"last answer: {answer!r}"
        except AssertionError as error:
            answer, failure = None, str(error)
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or question!r}; {failure}")
        time.sleep(0.05)

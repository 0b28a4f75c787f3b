"""Finds out whether the server runs several processes that serve the same application."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

logger: logging.Logger = logging.getLogger(__name__)


def warn_of_several_workers() -> None:
    """Log a warning if several processes serve an application whose events stay in each of them."""
    count = count_of_workers()
    if count > 1:
        logger.warning(
            "%d worker processes serve the application, and its events reach only the clients of"
            " the worker in which they are published. Give it a backplane:"
            " Application(backplane=RedisBackplane(...))",
            count,
        )


def count_of_workers() -> int:
    """Return how many worker processes the server runs, as far as that can be detected.

    Uvicorn and Hypercorn hand their configuration to the processes that they start. Gunicorn
    forks, so that its workers have its command line.
    """
    keywords: Any = getattr(multiprocessing.current_process(), "_kwargs", {})
    workers = getattr(keywords.get("config"), "workers", None)
    if isinstance(workers, int):
        return workers
    if os.path.basename(sys.argv[0]).startswith("gunicorn"):
        options = shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))
        count = _option((*options, *sys.argv[1:])) or os.environ.get("WEB_CONCURRENCY", "")
        return int(count) if count.isdecimal() else 1
    return 1


def _option(words: Sequence[str]) -> str:
    """Return the value of the last option for the number of workers."""
    value = ""
    for word, following in zip(words, (*words, "")[1:], strict=True):
        if word in ("-w", "--workers"):
            value = following
        elif word.startswith("--workers="):
            value = word.partition("=")[2]
        elif word.startswith("-w") and word[2:].isdecimal():
            value = word[2:]
    return value

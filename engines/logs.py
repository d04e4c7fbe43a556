"""Structured logs on standard error: lines for people, or JSON lines with `LOG_FORMAT=json`.

    LOG_FORMAT  `json`: one JSON object a line; anything else, or nothing: lines for people
    LOG_LEVEL   `debug`, `info`, `warning` or `error`; the page logs from `info` up, and a command
                from `warning` up, unless it is told or `LOG_FORMAT` is set

Every line of a run carries `run`, the id that the page, the report and the record show. Events are
`prepared` and `transcribed`, with the seconds of each stage, and `failed`, with the error; all have
`engine` and `model`, and `clip` where there is one. What was said in a clip stands in no line above
`debug`.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog

FORMAT, LEVEL = "LOG_FORMAT", "LOG_LEVEL"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
OURS = ("engines", "demo")
"""Loggers that follow `LOG_LEVEL`; other packages' are heard from `warning` up."""

SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def new_run_id() -> str:
    """Twelve hexadecimal digits, drawn at random."""
    return secrets.token_hex(6)


@contextmanager
def in_run(run: str, **fields: Any) -> Iterator[None]:
    """Everything logged in this block, by this thread, carries the run's id and the fields."""
    with structlog.contextvars.bound_contextvars(run=run, **fields):
        yield


def logger(name: str = "engines") -> Any:
    """A logger that takes an event and its fields: `logger().info("prepared", engine="cpu")`."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def set_up(default: str = "warning", stream: TextIO | None = None) -> None:
    """Send what is logged to standard error; a second call replaces the first one's settings."""
    stream = stream or sys.stderr
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, Handler)]:
        root.removeHandler(handler)
    handler = Handler(stream)
    handler.setFormatter(make_formatter(stream))
    root.addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(pick_level(default))


class Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it can be found again among others."""


def pick_level(default: str) -> int:
    """`LOG_LEVEL` if it is one of the four, else `info` under `LOG_FORMAT`, else the default."""
    asked = os.environ.get(LEVEL, "").lower()
    return LEVELS.get(asked, LEVELS["info" if os.environ.get(FORMAT) else default])


def make_formatter(stream: TextIO) -> logging.Formatter:
    """What turns an event into a line, whoever logged it."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            round_seconds,
            *make_renderers(stream),
        ],
    )


def make_renderers(stream: TextIO) -> list[Callable[..., Any]]:
    """JSON, or a line for people, in colour on a terminal."""
    if os.environ.get(FORMAT, "").lower() == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty())]


def round_seconds(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Numbers to a tenth of a millisecond: more digits than that are noise."""
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in event.items()}

"""Structured logs on standard error: lines for people, or JSON lines with `LOG_FORMAT=json`.

    LOG_FORMAT  `json`: one JSON object a line; anything else, or nothing: lines for people
    LOG_LEVEL   `debug`, `info`, `warning` or `error`; the page logs from `info` up, and a command
                from `warning` up, unless it is told or `LOG_FORMAT` is set

Every line of a run carries `run`, the id that the page, the report and the record show. Events are
`prepared` and `transcribed`, with the seconds of each stage, and `failed`, with the error; all have
`engine` and `model`, and `clip` where there is one. The `failed` of a command that ends with an
error has `command` instead. What was said in a clip stands in no line above `debug`.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, TextIO

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars
from structlog.stdlib import ProcessorFormatter

FORMAT, LEVEL = "LOG_FORMAT", "LOG_LEVEL"
LEVELS = ("debug", "info", "warning", "error")
OURS = ("engines", "demo")
"""Loggers that follow `LOG_LEVEL`; other packages' are heard from `warning` up."""

SHARED: list[Any] = [
    merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *SHARED,
        ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)

logger = structlog.get_logger
"""A logger of events with fields: `logger("engines").info("prepared", engine="cpu")`."""


def new_run_id() -> str:
    """Return twelve random hexadecimal digits."""
    return secrets.token_hex(6)


def in_run(run: str, **fields: Any) -> AbstractContextManager[None]:
    """Put the run's id and the fields on everything that this thread logs in the block."""
    return bound_contextvars(run=run, **fields)


def current_run() -> str:
    """Return the id of the run around the call, or nothing."""
    return str(get_contextvars().get("run", ""))


def set_up(default: str = "warning", stream: TextIO | None = None) -> None:
    """Send logs to standard error; a second call replaces the settings of the first one."""
    remove()
    handler = logging.StreamHandler(stream)
    handler.set_name(__name__)
    renderers: list[Any] = [structlog.dev.ConsoleRenderer(colors=handler.stream.isatty())]
    if writes_json():
        renderers = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[ProcessorFormatter.remove_processors_meta, round_seconds, *renderers],
        )
    )
    logging.getLogger().addHandler(handler)
    wanted = os.environ.get(LEVEL, "").lower()
    level = wanted if wanted in LEVELS else "info" if os.environ.get(FORMAT) else default
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


def remove() -> None:
    """Send logs nowhere any more."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if each.name == __name__]:
        root.removeHandler(handler)


def writes_json() -> bool:
    """Return whether logs are lines of JSON."""
    return os.environ.get(FORMAT, "").lower() == "json"


def round_seconds(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Round numbers to a tenth of a millisecond: more digits are noise."""
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in event.items()}

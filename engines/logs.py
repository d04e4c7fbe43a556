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
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter

FORMAT, LEVEL = "LOG_FORMAT", "LOG_LEVEL"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
OURS = ("engines", "demo")
"""Loggers that follow `LOG_LEVEL`; other packages' are heard from `warning` up."""

SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
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


def new_run_id() -> str:
    """Return twelve random hexadecimal digits."""
    return secrets.token_hex(6)


@contextmanager
def in_run(run: str, **fields: Any) -> Iterator[None]:
    """Put the run's id and the fields on everything that this thread logs in the block."""
    with structlog.contextvars.bound_contextvars(run=run, **fields):
        yield


def current_run() -> str:
    """Return the id of the run around the call, or nothing."""
    return str(structlog.contextvars.get_contextvars().get("run", ""))


def logger(name: str = "engines") -> Any:
    """Return a logger of events with fields: `logger().info("prepared", engine="cpu")`."""
    return structlog.get_logger(name)


class Handler(logging.StreamHandler[TextIO]):
    """Our handler, told by its class from those of others."""


def set_up(default: str = "warning", stream: TextIO | None = None) -> None:
    """Send logs to standard error; a second call replaces the settings of the first one."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, Handler)]:
        root.removeHandler(handler)
    handler = Handler(stream or sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                round_seconds,
                *_renderers(handler.stream),
            ],
        )
    )
    root.addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(pick_level(default))


def pick_level(default: str) -> int:
    """Return `LOG_LEVEL` if it is one of the four, else info under `LOG_FORMAT` or the default."""
    asked = os.environ.get(LEVEL, "").lower()
    return LEVELS.get(asked, LEVELS["info" if os.environ.get(FORMAT) else default])


def writes_json() -> bool:
    """Return whether logs are lines of JSON."""
    return os.environ.get(FORMAT, "").lower() == "json"


def _renderers(stream: TextIO) -> list[Any]:
    if writes_json():
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        return [structlog.processors.format_exc_info, renderer]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty())]


def round_seconds(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Round numbers to a tenth of a millisecond: more digits are noise."""
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in event.items()}

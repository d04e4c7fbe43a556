"""Everything here that reaches behind Gradio's public interface (6.31), and why.

`tests/test_gradio_internals.py` says which of them an upgrade of Gradio has broken.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, route_utils

CLOSED = (
    "/gradio_api/file=http",
    "/gradio_api/file/http",
    "/gradio_api/proxy=",
    "/gradio_api/component_server",
    "/gradio_api/process_recording",
    "/gradio_api/deep_link",
    "/gradio_api/vibe",
)
"""Routes that fetch, convert or store what a visitor sends, or call a component's own functions.
Nothing here needs them; Gradio has no switch for most."""

UNGUARDED = ("/gradio_api/startup-events",)
"""What Gradio asks itself when it starts, without a password."""


class OwnFolder(route_utils.GradioUploadFile):
    """An upload whose folder is named by chance.

    Gradio names it by the content: two visitors with the same clip would share one file, and the
    first to be done with it would take it from the other.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sha.update(secrets.token_bytes(32))


def harden() -> None:
    """Give every upload a folder of its own, and let Gradio fetch no address that a visitor names
    as a clip: any component takes one, so there is one place to close, not one for each."""
    route_utils.GradioUploadFile = OwnFolder  # type: ignore[misc]
    processing_utils.async_ssrf_protected_get = refuse_address
    processing_utils.async_ssrf_protected_download = refuse_address


async def refuse_address(url: str, *_: Any, **__: Any) -> NoReturn:
    """Stand in for Gradio's download."""
    raise gr.Error("Addresses are not fetched here: upload the file.", print_exception=False)


def forget_visits(page: gr.Blocks, seconds: float) -> None:
    """Drop what Gradio holds of visits that did nothing for so long: inputs, panels' values,
    messages that nobody fetched, and the names of deleted files. Called in the server's loop.

    Of a visit that was displaced by newer ones Gradio no longer has the time; it counts from here.
    """
    for paths in page.temp_file_sets:
        paths -= {path for path in paths if not Path(path).exists()}
    holder, queue = page.server_app.state_holder, page._queue
    now = datetime.now()
    for visit in {*queue.pending_event_ids_session, *queue.pending_messages_per_session}:
        holder.time_last_used.setdefault(visit, now)
    for visit, used in list(holder.time_last_used.items()):
        events = queue.pending_event_ids_session.get(visit, set())
        at_work = any(event in queue.event_ids_to_events for event in events)
        if at_work or now - used < timedelta(seconds=seconds):
            continue
        for held in (
            holder.session_data,
            holder.time_last_used,
            queue.pending_messages_per_session,
            queue.pending_event_ids_session,
        ):
            held.pop(visit, None)

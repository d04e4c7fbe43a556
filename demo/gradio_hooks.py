"""Every use of what Gradio (6.31) keeps private; tests of their effects fail where one breaks."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
import jinja2
from gradio import processing_utils, route_utils, routes, utils

from demo.uploads import current_upload

UNREADABLE = (
    "What was sent can't be read: docs/api.md says what may be, and a clip is uploaded first."
)

REST = r"""<script>(() => {
  const counter = /performance\.now\(\)\s*-[^;]{1,40}\/\s*1(e3|000)/;
  const next = window.requestAnimationFrame;
  window.requestAnimationFrame = (call) => counter.test(call) ? 0 : next.call(window, call);
})();</script>"""
"""Keeps Gradio's counters of seconds from getting frames: that of its first “Loading …” would count
on at every frame, though nobody sees it, and no other is shown on this page."""

find_changes = utils.diff
find_template = routes.templates.env.loader.get_source  # type: ignore[union-attr]


def read_template(name: str) -> tuple[str, str | None, Callable[[], bool] | None]:
    """Return a template of Gradio's, with `REST` before the scripts of a page."""
    source, file, is_fresh = find_template(routes.templates.env, name)
    return source.replace("<script", f"{REST}<script", 1), file, is_fresh


class OwnFolder(route_utils.GradioUploadFile):
    """An upload whose folder is named by chance.

    Gradio names it by the content: two visitors with the same clip would share one file, and the
    first to be done with it would take it from the other.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if upload := current_upload.get():
            upload.add(self.file.name)
        self.sha.update(secrets.token_bytes(32))


async def refuse_address(url: str, *_: Any, **__: Any) -> NoReturn:
    """Stand in for Gradio's download."""
    raise gr.Error("Addresses are not fetched here: upload the file.", print_exception=False)


def send_changes(old: Any, new: Any) -> list[Any]:
    """Return what Gradio sends of a value that changed; all of it where a list became shorter.

    Gradio numbers deletions in nested lists wrongly: rows of words that merge garbled those below.
    """
    changes: list[Any] = find_changes(old, new)
    if any(action == "delete" and isinstance(path[-1], int) for action, path, _ in changes):
        return [["replace", [], new]]
    return changes


def harden_gradio(page: gr.Blocks) -> None:
    """Give every upload a folder of its own, send lists that shrink whole, let the idle page rest.

    Boxes for files give their paths; by themselves they leave an empty file for each, at each call.

    Gradio fetches no address that a visitor names as a clip: any component takes one, so there is
    one place to close, not one for each. What it can't read is refused in a sentence, without a
    traceback in the log.
    """
    routes.templates.env.loader = jinja2.FunctionLoader(read_template)
    utils.diff = send_changes
    route_utils.GradioUploadFile = OwnFolder  # type: ignore[misc]
    for box in (gr.File, gr.UploadButton):
        box._process_single_file = lambda _, file: file.path  # type: ignore[method-assign]
    processing_utils.async_ssrf_protected_get = refuse_address
    processing_utils.async_ssrf_protected_download = refuse_address
    read = page.preprocess_data

    async def preprocess_data(*arguments: Any, **named: Any) -> Any:
        try:
            return await read(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(UNREADABLE, print_exception=False) from error

    page.preprocess_data = preprocess_data  # type: ignore[method-assign]


def find_session(page: gr.Blocks, event_id: str) -> str:
    """Return the session of an event that is queued or running, else the id itself."""
    event = page._queue.event_ids_to_events.get(event_id)
    return str(event.session_hash) if event else event_id


def forget_progress(is_open: Callable[[str], bool]) -> None:
    """Drop what Gradio keeps for ever of each upload whose progress somebody could ask for."""
    progress = routes.file_upload_statuses
    for kept in (progress._statuses, progress._signals):
        for name in [each for each in kept if not is_open(each)]:
            del kept[name]


def forget_sessions(page: gr.Blocks, seconds: float) -> None:
    """Drop what Gradio holds of sessions that did nothing for so long: inputs, panels' values,
    messages that nobody fetched, and the names of deleted files. Called in the server's loop.

    Of a session that newer ones displaced Gradio no longer has the time; it counts from here.
    """
    for paths in page.temp_file_sets:
        paths -= {path for path in paths if not Path(path).exists()}
    holder, queue = page.server_app.state_holder, page._queue
    now = datetime.now()
    for session in {*queue.pending_event_ids_session, *queue.pending_messages_per_session}:
        holder.time_last_used.setdefault(session, now)
    for session, used in list(holder.time_last_used.items()):
        events = queue.pending_event_ids_session.get(session, set())
        at_work = any(event in queue.event_ids_to_events for event in events)
        if not at_work and now - used >= timedelta(seconds=seconds):
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)

"""How the page is served: its theme, its limits, and no request to any other host."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from demo import space
from demo.guard import Guard, fetch_nothing, read_credentials
from demo.health import make_route
from demo.keepsakes import Keepsakes
from demo.limits import Allowance, read_limits, trust_proxies_of_spaces
from demo.runs import Runs
from demo.snapshot import Status
from demo.tidy import MOST_SESSIONS, make_folder, part_uploads, tidying
from demo.tools import make_tools
from engines.audio import MAX_BYTES

ROOT = Path(__file__).resolve().parent.parent
STYLE = ROOT / "assets" / "style.css"
STAGE_STYLE = ROOT / "assets" / "stage.css"
SCRIPT = ROOT / "assets" / "page.js"
SAMPLES = ROOT / "audio_samples"

THREADS_BESIDE = 30
"""Gradio's jobs at one time beside those that wait for their turn."""
STOPPING = (signal.SIGINT, signal.SIGTERM)
EVENTS_REMEMBERED = 100
"""Events that Gradio keeps figures of, and goes through after each."""
LAST_WORDS_SECONDS, LAST_PACKET_SECONDS = 5.0, 0.2
"""How long at most the browsers may take to fetch the news that their runs were stopped, and how
long the last of it may be on its way."""

logger = logging.getLogger(__name__)


def serves_only_this_machine() -> bool:
    """True unless Gradio's own variable, or a Space, makes others reach the page."""
    return not space.is_here() and os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1") in (
        "127.0.0.1",
        "localhost",
        "::1",
    )


def can_open_browser() -> bool:
    """Whether somebody sits at this machine, at a terminal, with windows for a browser."""
    windows = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return serves_only_this_machine() and sys.stdout.isatty() and windows


def expect_visitors() -> tuple[Runs, Keepsakes]:
    """The queue with its limits, and what results are kept in; makes the folder for uploads.

    Called before the page is built, which wants both. A variable that says nothing sensible ends
    the program with a sentence.
    """
    try:
        read_credentials()
        limits = read_limits(serves_only_this_machine())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    make_folder()
    return Runs(limits), Keepsakes()


def serve_until_told(
    page: gr.Blocks,
    statuses: Callable[[], Sequence[Status]],
    runs: Runs,
    keepsakes: Keepsakes,
    end_engines: Callable[[], None],
    **options: Any,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then stop what runs, say so, and leave nothing behind.

    A second signal ends the program at once. `end_engines` ends their processes.
    """
    told: list[int] = []  # a signal may come at any line, where a lock might be held

    def hear(number: int, frame: Any) -> None:
        told.append(number)
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)

    for each in STOPPING:
        signal.signal(each, hear)
    try:
        serve(page, statuses, runs, keepsakes, prevent_thread_lock=True, **options)
        while not told:
            time.sleep(0.1)
        logger.info("stopping what runs")
        asking = list_asking(page)
        runs.close()
        wait_for_last_words(page, asking)
    finally:
        end_engines()
    page.close(verbose=False)


def list_asking(page: gr.Blocks) -> list[str]:
    """Visits for which Gradio's queue (6.31) is at work."""
    return [event.session_hash for job in page._queue.active_jobs if job for event in job]


def wait_for_last_words(page: gr.Blocks, visits: Sequence[str]) -> None:
    """Wait, for so long and no longer, until all that is at work is done and those visits have
    fetched their messages."""
    queue, until = page._queue, time.monotonic() + LAST_WORDS_SECONDS
    while time.monotonic() < until:
        unread = [queue.pending_messages_per_session.get(visit) for visit in visits]
        if not any(queue.active_jobs) and all(each is None or each.empty() for each in unread):
            break
        time.sleep(0.02)
    time.sleep(LAST_PACKET_SECONDS)


def serve(
    page: gr.Blocks,
    statuses: Callable[[], Sequence[Status]] = tuple,
    runs: Runs | None = None,
    keepsakes: Keepsakes | None = None,
    **options: Any,
) -> Any:
    """Launch the page; host and port come from Gradio's own environment variables.

    `statuses`: the engines, for `/health`. `runs` and `keepsakes`: those that the page was built
    with. A name and a password are asked for where `DEMO_AUTH` says so; see `demo.guard`.
    """
    runs, keepsakes = runs or Runs(), keepsakes or Keepsakes()
    page.queue(default_concurrency_limit=8)
    page._queue.ANALYTICS_MAX_EVENTS = EVENTS_REMEMBERED
    fetch_nothing()
    part_uploads()
    trust_proxies_of_spaces()
    return page.launch(
        server_name=space.pick_address(),
        theme=choose_theme(),
        css_paths=STYLE,
        head=write_head(),
        max_file_size=MAX_BYTES,
        allowed_paths=[str(SAMPLES)],
        footer_links=[],
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        app_kwargs=extend_server(page, statuses, runs, keepsakes),
        max_threads=runs.limits.waiting + THREADS_BESIDE,
        state_session_capacity=MOST_SESSIONS,
        **options,
    )


def extend_server(
    page: gr.Blocks,
    statuses: Callable[[], Sequence[Status]],
    runs: Runs,
    keepsakes: Keepsakes,
) -> dict[str, Any]:
    """What the web server has beside Gradio's: the guard, `/health`, tools where there are, and
    somebody who tidies up."""
    credentials, limits = read_credentials(), runs.limits
    uploads = Allowance(limits.upload_bytes, 3600.0) if limits.upload_bytes else None
    tools = make_tools(credentials, serves_only_this_machine())

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(tidying(page, keepsakes, SAMPLES.glob("*.flac")))
            if tools is not None:
                await stack.enter_async_context(tools.lifespan(app))
            yield

    return {
        "middleware": [Middleware(Guard, credentials=credentials, uploads=uploads)],
        "routes": [make_route(statuses, runs.count), *(tools.routes if tools else ())],
        "lifespan": lifespan,
    }


def write_head() -> str:
    """What the page's head holds of ours: the script, and a sheet that Gradio would confine."""
    script, style = (path.read_text(encoding="utf-8") for path in (SCRIPT, STAGE_STYLE))
    return f"<script>{script}</script><style>{style}</style>"


def choose_theme() -> gr.themes.ThemeClass:
    """Calm greys, one blue for what can be pressed, and fonts that are already there."""
    return gr.themes.Default(
        primary_hue="sky",
        neutral_hue="slate",
        radius_size="lg",
        text_size="lg",
        font=("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"),
        font_mono=("ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"),
    ).set(
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_label_text_color="*neutral_700",
        button_primary_background_fill="#0072B2",
        button_primary_background_fill_dark="#0072B2",
        button_primary_background_fill_hover="#005f96",
        button_primary_background_fill_hover_dark="#0f7bbd",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )

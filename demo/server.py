"""How the page is served: environment, health, cleaning, shutdown; no request to another host.

    SPACE_ID            set by Hugging Face Spaces: the page is public and listens everywhere; no
                        file of the machine may be named as a checkpoint, and visitors have limits
    GRADIO_SERVER_NAME  Gradio's own: any address but this machine's makes the page public as well

A Space's persistent storage is the folder `/data`, where its owner bought it; what was compiled and
downloaded is kept there, unless variables say otherwise, so that it outlives the container.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from demo import gradio_internals, uploads
from demo.comparison import Backend
from demo.jobs import JobQueue, SavedResults
from demo.limits import Allowance, read_limits, trust_proxies_of_spaces
from demo.mcp import make_tools
from demo.middleware import LEAST_DISK_BYTES, Guard, read_credentials
from demo.snapshot import Status
from engines import zero_gpu
from engines.audio import MAX_BYTES

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "audio_samples"
ASSETS = ROOT / "assets"
STORAGE = Path("/data")

THREADS_BESIDE = 30
"""Gradio's jobs at one time beside those that wait for their turn."""

MOST_SESSIONS = 64
"""Visits of which Gradio remembers what the panels held; nothing here asks for it."""

STOPPING = (signal.SIGINT, signal.SIGTERM)
SWEEP_SECONDS = 60.0
LAST_WORDS_SECONDS = 1.0
"""How long browsers have to fetch the news that their jobs were stopped."""

logger = logging.getLogger(__name__)


def is_space() -> bool:
    """Whether this is a Hugging Face Space."""
    return bool(os.environ.get("SPACE_ID"))


def set_environment(storage: Path = STORAGE) -> None:
    """Set the variables that Gradio and the engines go by, where nobody has set them.

    Call it before the page is built and an engine made: the engines' processes inherit them. A
    variable that says nothing sensible ends the program with a sentence.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # it goes through all after each
    try:
        zero_gpu.read_seconds()
        read_credentials()
        read_limits(is_private())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if not is_space():
        return
    if is_writable(storage):
        os.environ.setdefault("XDG_CACHE_HOME", str(storage / "cache"))  # OpenAI's checkpoints
        os.environ.setdefault("MAX_WHISPER_CACHE", str(storage / "max-whisper"))
    if zero_gpu.is_usable():
        zero_gpu.register()


def is_private() -> bool:
    """True unless Gradio's own variable, or a Space, makes others reach the page."""
    return not is_space() and os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1") in (
        "127.0.0.1",
        "localhost",
        "::1",
    )


def pick_address() -> str | None:
    """Where the server listens: on a Space everywhere, unless Gradio's own variable says more."""
    return "0.0.0.0" if is_space() and not os.environ.get("GRADIO_SERVER_NAME") else None


def is_writable(folder: Path) -> bool:
    """Whether a folder is there and takes files."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError:
        return False
    return True


def can_open_browser() -> bool:
    """Whether somebody sits at this machine, at a terminal, with windows for a browser."""
    windows = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return is_private() and sys.stdout.isatty() and windows


def serve_until_told(
    page: gr.Blocks,
    backend: Backend,
    queue: JobQueue,
    saved: SavedResults,
    end_engines: Callable[[], None],
    **options: Any,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then stop the jobs, say so, and leave nothing behind.

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
        serve(page, backend, queue, saved, prevent_thread_lock=True, **options)
        while not told:
            time.sleep(0.1)
        logger.info("stopping what runs")
        busy = queue.count()["running"]
        queue.close()
        if busy:
            time.sleep(LAST_WORDS_SECONDS)
    finally:
        end_engines()
    page.close(verbose=False)


def serve(
    page: gr.Blocks, backend: Backend, queue: JobQueue, saved: SavedResults, **options: Any
) -> Any:
    """Launch the page that was built over the same backend, queue and results; host and port come
    from Gradio's own environment variables."""
    page.queue(default_concurrency_limit=8)
    gradio_internals.harden()
    trust_proxies_of_spaces()
    return page.launch(
        server_name=pick_address(),
        theme=choose_theme(),
        css_paths=ASSETS / "style.css",
        head=write_head(),
        max_file_size=MAX_BYTES,
        footer_links=[],
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        app_kwargs=extend_server(page, backend, queue, saved),
        max_threads=queue.limits.waiting + THREADS_BESIDE,
        state_session_capacity=MOST_SESSIONS,
        **options,
    )


def extend_server(
    page: gr.Blocks, backend: Backend, queue: JobQueue, saved: SavedResults
) -> dict[str, Any]:
    """What the web server has beside Gradio's: middleware, `/health`, MCP tools, and cleaning."""
    credentials, limits = read_credentials(), queue.limits
    allowance = Allowance(limits.upload_bytes, 3600.0) if limits.upload_bytes else None
    tools = make_tools(backend, queue, is_private())

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            cleaning = asyncio.create_task(clean_often(page, saved))
            stack.callback(cleaning.cancel)
            if tools is not None:
                await stack.enter_async_context(tools.run())
            yield

    return {
        "middleware": [Middleware(Guard, credentials=credentials, uploads=allowance)],
        "routes": [make_health_route(backend.statuses, queue), *(tools.routes if tools else ())],
        "lifespan": lifespan,
    }


async def clean_often(page: gr.Blocks, saved: SavedResults) -> None:
    """Forget every minute what visitors left an hour ago, for as long as the server runs."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await run_in_threadpool(uploads.sweep, uploads.find_folder())
            saved.forget(uploads.KEEP_SECONDS)
            gradio_internals.forget_visits(page, uploads.KEEP_SECONDS)
        except Exception:
            logger.exception("cleaning failed")


def make_health_route(statuses: Callable[[], Sequence[Status]], queue: JobQueue) -> Route:
    """`/health`: 200 with `status` `ok`, or 503 with a sentence in `status`.

    Both say the uptime, memory, free disk, queue, and each engine with the reason where it can't
    run. Nothing in it names a visitor, a clip or a path.
    """
    started = time.monotonic()

    def answer(request: Request) -> JSONResponse:
        free, engines = uploads.free_bytes(), statuses()
        fault = find_fault(engines, free)
        report = {
            "status": fault or "ok",
            "uptime_seconds": round(time.monotonic() - started, 1),
            "memory_bytes": read_memory(),
            "free_disk_bytes": free,
            "queue": queue.count(),
            "engines": {each.key: "ok" if each.available else each.reason for each in engines},
        }
        return JSONResponse(report, 503 if fault else 200, headers={"cache-control": "no-store"})

    return Route("/health", answer, methods=["GET"])


def find_fault(statuses: Sequence[Status], free_disk: int) -> str | None:
    """Why a visitor would be disappointed, as a sentence."""
    if statuses and not any(status.available for status in statuses):
        return "No engine can run."
    if free_disk < LEAST_DISK_BYTES:
        return f"The disk for uploads has {free_disk / 2**20:.0f} MB left."
    return None


def read_memory() -> int | None:
    """The process's resident bytes; None where the system does not say."""
    try:
        fields = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    lines = (line.split() for line in fields if line.startswith("VmRSS:"))
    return next((int(words[1]) * 1024 for words in lines), None)


def write_head() -> str:
    """What the page's head holds of ours: the script, and a sheet that Gradio would confine."""
    script, style = (
        (ASSETS / name).read_text(encoding="utf-8") for name in ("page.js", "stage.css")
    )
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

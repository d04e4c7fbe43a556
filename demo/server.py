"""Serve the page: environment, middleware, health, cleaning and shutdown.

    SPACE_ID            set by Hugging Face Spaces: the page is public and listens everywhere; no
                        file of the machine may be named as a checkpoint, and visitors have limits
    GRADIO_SERVER_NAME  Gradio's own: any address but this machine's makes the page public as well
    DEMO_PROXY          set where a web server on this machine brings visitors from elsewhere, which
                        makes the page public too; it then answers to any name

A Space's persistent storage is the folder `/data`, where its owner bought it; what was compiled and
downloaded is kept there, unless variables say otherwise, so that it outlives the container.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from demo import gradio_hooks, openai_routes, uploads
from demo.api import make_tools
from demo.comparison import Backend
from demo.exports import ASSETS, STYLES
from demo.jobs import JobQueue
from demo.limits import Allowance, read_limits, read_number, trust_proxies_of_spaces
from demo.middleware import Guard, PageCompression, read_credentials
from demo.panels import charts
from demo.visits import SavedResults
from engines import hardware, zero_gpu
from engines.audio import MAX_BYTES
from engines.registry import ENGINES, EngineStatus

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = Path("audio_samples")
"""Below `ROOT`, where `set_environment` goes: the page tells every visitor this path."""

MOST_SESSIONS = 64
"""Sessions whose component values Gradio keeps; nothing here reads them."""

PROXY = "DEMO_PROXY"
SWEEP_SECONDS = 60.0

logger = logging.getLogger(__name__)


def is_space() -> bool:
    """Return whether this is a Hugging Face Space."""
    return bool(os.environ.get("SPACE_ID"))


def is_private() -> bool:
    """Return whether only this machine can reach the page: no Space, no proxy, a local address."""
    local = ("127.0.0.1", "localhost", "::1")
    if is_space() or os.environ.get(PROXY):
        return False
    return os.environ.get("GRADIO_SERVER_NAME", local[0]) in local


def set_environment(storage: Path = Path("/data")) -> None:
    """Set the variables that Gradio and the engines go by, where nobody has set them, and go to the
    project's folder.

    Call it before the page is built and an engine made: the engines' processes inherit them. A
    variable that says nothing sensible ends the program with a sentence.
    """
    os.chdir(ROOT)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # it goes through all after each
    try:
        check_port()
        read_number(zero_gpu.SECONDS, zero_gpu.CALL_SECONDS, 1, 3600)
        read_credentials()
        read_limits(is_private())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if not is_space():
        return
    if storage.is_dir() and os.access(storage, os.W_OK | os.X_OK):
        os.environ.setdefault("XDG_CACHE_HOME", str(storage / "cache"))  # OpenAI's checkpoints
        os.environ.setdefault("MAX_WHISPER_CACHE", str(storage / "max-whisper"))
    if zero_gpu.is_usable():
        zero_gpu.register()


def check_port() -> None:
    """Raise `ValueError` where the port that was asked for is taken; Gradio would use the next."""
    port = os.environ.get("GRADIO_SERVER_PORT", "")
    if not port:
        return
    if not port.isdecimal() or not 0 < int(port[:9]) < 2**16:
        raise ValueError(f"GRADIO_SERVER_PORT must be a port such as 7860, and {port!r} isn't.")
    host = pick_address() or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        raise ValueError(
            f"Port {port} is taken by another program: end that, or change GRADIO_SERVER_PORT."
        )


def pick_address() -> str | None:
    """Return where the server listens: on a Space everywhere, unless Gradio's variable is set."""
    return "0.0.0.0" if is_space() and not os.environ.get("GRADIO_SERVER_NAME") else None


def can_open_browser() -> bool:
    """Return whether the program was started at a terminal of a machine with a desktop."""
    windows = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return is_private() and sys.stdout.isatty() and windows


def serve_until_told(
    page: gr.Blocks, backend: Backend, queue: JobQueue, saved: SavedResults, **options: Any
) -> None:
    """`serve` until SIGTERM or Ctrl-C, then stop the jobs and say so.

    The engines' processes end with this one. A second signal ends the program at once.
    """
    stopping = (signal.SIGINT, signal.SIGTERM)
    for each in stopping:
        signal.signal(each, signal.default_int_handler)
    try:
        serve(page, backend, queue, saved, prevent_thread_lock=True, **options)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        for each in stopping:
            signal.signal(each, signal.SIG_DFL)
    logger.info("stopping what runs")
    busy = queue.count()["running"]
    queue.close()
    if busy:
        time.sleep(1.0)  # for browsers to fetch the news that their jobs were stopped
    page.close(verbose=False)


def serve(
    page: gr.Blocks, backend: Backend, queue: JobQueue, saved: SavedResults, **options: Any
) -> Any:
    """Launch the page that was built over the same backend, queue and results; host and port come
    from Gradio's own environment variables."""
    page.queue(default_concurrency_limit=8, api_open=False)  # a direct call would hide who left
    gradio_hooks.harden_gradio(page)
    trust_proxies_of_spaces()
    # The sheet stands in the head, as Gradio would confine it.
    names = (
        "slides.js",
        "stage.js",
        "page.js",
        "upload.js",
        "part.js",
        "words.js",
        "charts.js",
        "stage.css",
    )
    *scripts, style = ((ASSETS / name).read_text("utf-8") for name in names)
    colours = "".join(f"--engine-{row.key}:{row.colour};" for row in ENGINES)
    style = (ASSETS / "stage.css").read_text("utf-8") + f"\n:root {{{colours}}}"
    return page.launch(
        server_name=pick_address(),
        theme=choose_theme(),
        css_paths=list(STYLES),
        head="".join(f"<script>{each}</script>" for each in scripts) + f"<style>{style}</style>",
        max_file_size=MAX_BYTES,
        footer_links=[],
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        app_kwargs=extend_server(page, backend, queue, saved),
        max_threads=queue.limits.waiting + 30,  # some for what need not wait for its turn
        state_session_capacity=MOST_SESSIONS,
        **options,
    )


def extend_server(
    page: gr.Blocks, backend: Backend, queue: JobQueue, saved: SavedResults
) -> dict[str, Any]:
    """Return what Gradio's web server gets beside its own: middleware, routes, MCP and cleaning."""
    most = queue.limits.upload_bytes
    opened = uploads.OpenUploads(
        Allowance(most, 3600.0) if most else None, bool(queue.limits.at_once)
    )
    routes: list[BaseRoute] = [make_health_route(backend.statuses, queue), make_script_route()]
    routes += openai_routes.make_routes(backend, queue)
    tools = make_tools(backend, queue)
    if tools is not None:  # where Gradio's own server would be, so that clients find it
        routes.append(Mount("/gradio_api/mcp", app=tools.streamable_http_app()))

    async def clean_often() -> None:
        """Forget every minute what visitors left an hour ago, whatever the clock is set to."""
        set_by = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                before, set_by = set_by, time.time() - time.monotonic()
                ahead = set_by - before if set_by - before > 1.0 else 0.0
                await run_in_threadpool(uploads.sweep, uploads.find_folder(), ahead=ahead)
                saved.forget(uploads.KEEP_SECONDS)
                gradio_hooks.forget_sessions(page, uploads.KEEP_SECONDS)
                gradio_hooks.forget_progress(opened.knows)
            except Exception:
                logger.exception("cleaning failed")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            cleaning = asyncio.create_task(clean_often())
            stack.callback(cleaning.cancel)
            if tools is not None:
                await stack.enter_async_context(tools.session_manager.run())
            yield

    guard = Middleware(
        Guard,
        opened=opened,
        streams=queue.streams,
        find_session=partial(gradio_hooks.find_session, page),
        credentials=read_credentials(),
        only_this_machine=is_private(),
    )
    return {
        "middleware": [guard, Middleware(PageCompression)],
        "routes": routes,
        "lifespan": lifespan,
    }


def make_health_route(statuses: Callable[[], Sequence[EngineStatus]], queue: JobQueue) -> Route:
    """`/health`: 200 with `status` `ok`, or 503 with a sentence in `status`.

    Both say the uptime, memory, free disk, queue, and each engine with the reason where it can't
    run. Nothing in it names a visitor, a clip or a path.
    """
    started = time.monotonic()

    def answer(request: Request) -> JSONResponse:
        free, engines = uploads.free_bytes(), statuses()
        problem = find_problem(engines, free)
        report = {
            "status": problem or "ok",
            "uptime_seconds": round(time.monotonic() - started, 1),
            "memory_bytes": hardware.read_status("VmRSS"),
            "free_disk_bytes": free,
            "queue": queue.count(),
            "engines": {each.key: "ok" if each.available else each.reason for each in engines},
        }
        return JSONResponse(report, 503 if problem else 200, headers={"cache-control": "no-store"})

    return Route("/health", answer, methods=["GET"])


def make_script_route() -> Route:
    """`/plotly.min.js`: what draws the charts, which a browser asks for with the first of them."""

    @cache
    def compress() -> bytes:
        return gzip.compress(charts.SCRIPT.read_bytes(), 6, mtime=0)

    def answer(request: Request) -> Response:
        headers = {"cache-control": "private, max-age=86400", "vary": "accept-encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return FileResponse(charts.SCRIPT, headers=headers, media_type="text/javascript")
        headers["content-encoding"] = "gzip"
        return Response(compress(), headers=headers, media_type="text/javascript")

    return Route("/plotly.min.js", answer, methods=["GET"])


def find_problem(statuses: Sequence[EngineStatus], free_disk: int) -> str | None:
    """Return why no visitor can be served, a sentence, or None."""
    if statuses and not any(status.available for status in statuses):
        return "No engine can run."
    if free_disk < uploads.LEAST_DISK_BYTES:
        return f"The disk for uploads has {free_disk / 2**20:.0f} MB left."
    return None


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

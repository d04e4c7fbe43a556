"""How the page is served: its theme, its limits, and no request to any other host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from engines.audio import MAX_BYTES

ROOT = Path(__file__).resolve().parent.parent
STYLE = ROOT / "assets" / "style.css"
SAMPLES = ROOT / "audio_samples"


def serves_only_this_machine() -> bool:
    """True unless Gradio's own variable makes the page reachable from other machines."""
    return os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1") in ("127.0.0.1", "localhost", "::1")


def serve(page: gr.Blocks, **options: Any) -> Any:
    """Launch the page; host and port come from Gradio's own environment variables."""
    page.queue(default_concurrency_limit=8)
    return page.launch(
        theme=choose_theme(),
        css_paths=STYLE,
        max_file_size=MAX_BYTES,
        allowed_paths=[str(SAMPLES)],
        footer_links=[],
        ssr_mode=False,
        **options,
    )


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

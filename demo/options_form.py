"""Controls for Whisper's options, which stand folded under Advanced; see `engines.options`."""

from __future__ import annotations

from collections.abc import Container
from itertools import groupby
from typing import Any

import gradio as gr

from demo.wiring import Component
from engines.options import OPTIONS, Option, WhisperOptions


def build_whisper_options(first: WhisperOptions, built: Container[str]) -> dict[str, Any]:
    """Build a control for each option under its group's heading; return them by name.

    `built`: those that have one elsewhere.
    """
    controls: dict[str, Any] = {}
    with gr.Accordion("Whisper’s options", open=False, elem_id="whisper-options"):
        for group, rows in groupby(OPTIONS.items(), lambda item: item[1].group):
            gr.HTML(f"<h3>{group}</h3>", apply_default_css=False)
            flags: list[str] = []
            boxes: list[str] = []
            for name, row in rows:
                if name in built:
                    continue
                (flags if row.kind == "flag" else boxes).append(name)
            # A flag has a row to itself: beside a box a phone would leave it a few letters' width.
            lines = [*(boxes[at : at + 3] for at in range(0, len(boxes), 3)), *([x] for x in flags)]
            for line in lines:
                with gr.Row(equal_height=False):
                    for name in line:
                        value = OPTIONS[name].hold(getattr(first, name))
                        controls[name] = build_control(name, OPTIONS[name], value)
    return controls


def build_control(name: str, row: Option, value: Any) -> Component:
    """Build a control that holds a value as `Option.hold` gives it, with its line of help."""
    traits: dict[str, Any] = {
        "label": row.label,
        "info": row.help,
        "elem_id": name,
        "min_width": 200,
    }
    if row.kind == "flag":
        return gr.Checkbox(value, **traits)
    if row.kind == "choice":
        values = [(text, each) for each, text in row.values.items()]
        return gr.Radio(values, value=value, elem_classes="pills", **traits)
    # Longer than any list of numbers, whose limit is told in a sentence.
    return gr.Textbox(value, max_lines=3, max_length=row.longest * 10 or 20, **traits)

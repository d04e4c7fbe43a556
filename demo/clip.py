"""The clip's controls: samples, the player, and which part, track and channel are taken."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

import gradio as gr

from demo import uploads
from demo.comparison import Backend
from demo.request import OWN_CLIP, ComparisonRequest
from demo.rules import RULES, Choices
from demo.wiring import QUICK, Component
from engines.base import EngineError
from engines.clip_source import Source
from engines.options import OPTIONS


def build_clip(backend: Backend, choices: Choices, first: ComparisonRequest) -> dict[str, Any]:
    """Build the choice of a sample, and the player; the visitor's own clip unchooses a sample.

    What browsers can't play is heard as a copy. A choice of tracks and channels is shown where a
    clip has several. A part is chosen on the waveform, by `assets/part.js`.
    """
    titles = [(title, key) for key, title in choices.values("sample").items()]
    sample = gr.Radio(
        [*titles, ("Your own", OWN_CLIP)],
        value=first.sample or OWN_CLIP,
        label=RULES["sample"].label,
        elem_id="sample",
        elem_classes="cards",
    )
    audio = gr.Audio(
        value=find_path(choices, first.sample),
        type="filepath",
        sources=["upload", "microphone"],
        show_label=False,
        label="Clip",
        elem_id="audio",
        editable=False,
        buttons=[],
        waveform_options={"waveform_color": "#8b93a1", "waveform_progress_color": "#0072B2"},
    )
    row = OPTIONS["clip_timestamps"]
    part = gr.Textbox(
        row.hold(first.clip_timestamps),
        label="Only from, to (s)",
        placeholder="whole clip",
        elem_id="clip_timestamps",
        max_lines=1,
        max_length=row.longest * 10,
        interactive=True,
    )
    note = gr.HTML("", elem_id="clip-note", apply_default_css=False)  # why it is no clip
    with gr.Row(elem_classes="clip-parts"):
        track, channel = build_part("track"), build_part("channel")
    parts: list[Component] = [track, channel]
    sample.input(partial(find_path, choices), sample, audio, **QUICK)
    audio.change(None, audio, None, js="(file) => { noteClip(file); }", **QUICK)
    for event in (audio.clear, audio.upload, audio.start_recording):
        event(lambda: OWN_CLIP, None, sample, **QUICK)
    part.change(None, None, None, js="() => { showPart(); }", **QUICK)
    for event in (sample.input, audio.clear, audio.upload, audio.start_recording):
        event(None, None, part, js="() => ''", **QUICK)  # its seconds were another clip's
    for event in (sample.input, audio.clear, audio.start_recording):
        event(lambda: [HIDDEN, HIDDEN, ""], None, [*parts, note], **QUICK)
    if backend.show_clip is not None:
        show = partial(show_clip, backend)
        shown = [audio, *parts, note]
        audio.upload(lambda path: show(path, 0, 0), audio, shown, **QUICK)
        gr.on([track.input, channel.input], show, [audio, *parts], shown, **QUICK)
    controls = {"sample": sample, "audio": audio, "track": track, "channel": channel}
    return controls | {"clip_timestamps": part}


HIDDEN: dict[str, Any] = gr.update(value=0, visible=False)


def build_part(name: str) -> gr.Dropdown:
    """Build the choice of a clip's track or channel, which is hidden at first."""
    values = [(label, value) for value, label in RULES[name].values.items()]
    label = RULES[name].label
    return gr.Dropdown(values, value=0, label=label, elem_id=name, visible=False, min_width=160)


def find_path(choices: Choices, key: str) -> str | None:
    """Return the file of a sample; None makes room for the visitor's own."""
    sample = choices.find_sample(key)
    return str(sample.path) if sample else None


def show_clip(backend: Backend, path: str | None, track: int, channel: int) -> list[Any]:
    """Return what the player, the choices of track and channel, and the note show of a visitor's
    clip. A file that can't be read stays in the player, and the note says why."""
    if not path or not uploads.is_upload(path) or backend.show_clip is None:
        return [gr.skip(), HIDDEN, HIDDEN, ""]
    original = uploads.find_original(path)
    copy = uploads.name_copy(original, track, channel)
    try:
        source, copied = backend.show_clip(str(original), str(copy), track, channel)
    except EngineError as error:
        note = f'<p role="alert"><span aria-hidden="true">⚠ </span>{escape(str(error))}</p>'
        return [gr.skip(), HIDDEN, HIDDEN, note]
    player = str(copy if copied else original)
    tracks, channels = list_tracks(source), list_channels(source)
    return [
        gr.skip() if player == path else player,
        gr.update(choices=tracks, value=track, visible=len(source.tracks) > 1),
        gr.update(choices=channels, value=channel, visible=source.channels > 1),
        "",
    ]


def list_tracks(source: Source) -> list[tuple[str, int]]:
    """List a clip's tracks for a choice, the usual one first."""
    tracks = [(each.describe(), each.number) for each in source.tracks]
    return [(RULES["track"].values[0], 0), *tracks]


def list_channels(source: Source) -> list[tuple[str, int]]:
    """List a track's channels for a choice; of two by their sides."""
    labels = RULES["channel"].values
    sides = source.channels == 2
    single = [(labels[n] if sides else str(n), n) for n in range(1, source.channels + 1)]
    return [(labels[0], 0), *single]

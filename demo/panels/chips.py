"""The settings that a result was made with, as a line of chips."""

from __future__ import annotations

from demo.panels.templating import render_template
from demo.rules import RULES
from demo.snapshot import Comparison
from engines.metrics import name_count
from engines.models import LANGUAGES
from engines.options import OPTIONS, WhisperOptions


def render(comparison: Comparison) -> str:
    """Render a chip for each setting; those at their usual value that few change are left out."""
    settings = comparison.settings
    chips = [
        comparison.clip_name or "Clip",
        settings.models,
        name_language(comparison),
        name_count(len(comparison.lanes), "engine"),
        RULES["schedule"].values[settings.schedule].lower(),
        "greedy" if settings.beam_size == 1 else f"beam {settings.beam_size}",
    ]
    if settings.repeats > 1:
        chips.append(f"{settings.repeats} repeats")
    if settings.word_timestamps:
        chips.append("word timestamps")
    chips += [f"{label}: {shorten(text)}" for label, text in list_changes(settings)]
    return render_template("chips.html", chips=chips)


def list_changes(settings: WhisperOptions) -> list[tuple[str, str]]:
    """List label and value of Whisper's options that are not at its own defaults."""
    changed = settings.changed().items()
    return [(OPTIONS[name].label, OPTIONS[name].describe(value)) for name, value in changed]


def shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def name_language(comparison: Comparison) -> str:
    """Name the language that was chosen, or the one that was found and how sure the model was."""
    if code := comparison.settings.language:
        return LANGUAGES.get(code, code).title()
    if comparison.settings.model.endswith(".en"):
        return "English"
    transcripts = [lane.transcript for lane in comparison.done if lane.transcript]
    if not transcripts:
        return "language detected"
    sure_ones = (each for each in transcripts if each.language_probability is not None)
    first = next(sure_ones, transcripts[0])
    name, sure = LANGUAGES.get(first.language, first.language).title(), first.language_probability
    return f"{name} detected" if sure is None else f"{name} detected ({sure:.0%})"

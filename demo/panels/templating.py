"""Render Jinja templates of `demo/templates`, everything that isn't markup escaped, and explain the
terms in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from engines.metrics import join_words

TERMS = {
    "baseline": "The engine that the others are compared with.",
    "beam": "Search that carries several candidate texts along and takes the likeliest; "
    "greedy search carries one.",
    "greedy": "Search that takes the likeliest token at each step.",
    "ln_post": "The last step of the encoder, a layer norm: its output is what the decoder reads.",
    "log-mel": "What Whisper hears: the energy in 80 or 128 bands of pitch, a hundred times a "
    "second, as a logarithm.",
    "MAX full": "Encoder and decoder both run as graphs of MAX, Modular’s compiler for models.",
    "MAX hybrid": "The encoder runs as a graph of MAX, Modular’s compiler for models; the decoder "
    "in PyTorch.",
    "no speech?": "Whisper finds it likely that nobody speaks in this window of 30 s. It kept the "
    "words, since they are likely as a text; where nobody speaks it may make such words up.",
    "normalised": "After the normaliser of the Whisper paper: case, punctuation, and spellings "
    "such as colour and color don’t count.",
    "peak memory": "The most memory that a run held at a time: the process’s, or the GPU’s.",
    "real time": "Seconds of audio for each second that the engine worked: above 1 it keeps up "
    "with speech.",
    "relative L2": "Length of the difference of two outputs over the length of the exact one: 0 "
    "where they are equal.",
    "set-up": "What an engine does before it encodes: most of it once in a process.",
    "tokens": "Words and pieces of words, as the model reads and writes them.",
    "word error rate": "Wrong, missing and added words for each word that was really said; of "
    "Chinese, Japanese, Thai and the like each character counts as a word.",
}
"""Words that a newcomer may not know, and what they mean: shown on hover, focus and touch."""

_ANY = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, TERMS))})(?!\w)", re.IGNORECASE)
_MEANINGS = {term.lower(): meaning for term, meaning in TERMS.items()}


def render_template(name: str, **values: Any) -> str:
    """Render a whole template."""
    return ENVIRONMENT.get_template(name).render(**values)


def join_parts(value: str | Sequence[Any]) -> str:
    """Join nested lists of markup into one text, as the page does in the browser."""
    return value if isinstance(value, str) else "".join(map(join_parts, value))


def format_clock(seconds: float) -> str:
    """Return minutes and seconds, as 1:04."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def explain(text: str, focus: bool = True) -> Markup:
    """Mark the terms in a text, each where it first stands, for `assets/page.js` to explain.

    `focus`: whether a term takes the focus; not within something that does.
    """
    seen: set[str] = set()

    def mark(part: str) -> Markup:
        meaning = _MEANINGS.get(part.lower())
        if meaning is None or meaning in seen:
            return escape(part)
        seen.add(meaning)
        stop = Markup(' tabindex="0"') if focus else ""
        return Markup('<span class="term"{} data-tip="{}">{}</span>').format(stop, meaning, part)

    return Markup("").join(map(mark, _ANY.split(text)))


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent.parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"clock": format_clock, "explain": explain, "join_words": join_words}

"""A finished comparison as one HTML file that opens from disk, without a network or a script.

It holds the panels of the page with the page's own style sheet; what the page takes from Gradio,
its colours and fonts, is set here for light and dark. Whatever came from a file or a model is
escaped, by the panels or here. A policy in its head forbids it to fetch or to run anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from demo import lanes, scores, timeline, timings
from demo.headline import render_headline, summarise
from demo.record import ComparisonRecord
from demo.snapshot import Comparison, Lane
from demo.transcripts import format_clock
from engines.base import Segment

STYLE = Path(__file__).resolve().parent.parent / "assets" / "style.css"

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

COLOURS = """
:root { color-scheme: light dark; --body-text-color: #1e293b; --body-text-color-subdued: #475569;
  --border-color-primary: #dbe1e8; --block-background-fill: #fff; --page: #f8fafc; }
@media (prefers-color-scheme: dark) {
  :root { --body-text-color: #f1f5f9; --body-text-color-subdued: #a9b4c2;
    --border-color-primary: #374151; --block-background-fill: #1b2330; --page: #0f1621; }
  .gradio-container { --added: #4fd0a4 !important; --removed: #ff9a57 !important;
    --alert: #ff9a57 !important; }
  .lane, .chart { --tone: color-mix(in oklab, var(--engine) 75%, white) !important; }
}
body { margin: 0; background: var(--page); color: var(--body-text-color);
  font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.report { padding: 1.75rem clamp(0.9rem, 3vw, 3.5rem) 2rem; box-sizing: border-box; }
.report > section { margin-top: 1.5rem; }
.report h2 { margin: 0 0 0.6rem; font-size: 1.25rem; }
.report .transcript { height: auto; max-height: none; overflow: visible; mask-image: none; }
.report .changes { max-height: none; mask-image: none; }
.facts { border-collapse: collapse; }
.facts th { text-align: left; font-weight: 600; padding: 0.15rem 1.2rem 0.15rem 0;
  vertical-align: top; white-space: nowrap; }
.facts td { padding: 0.15rem 0; overflow-wrap: anywhere; }
@media print { .lane, .chart, section { break-inside: avoid; } }
"""


def write_report(
    comparison: Comparison, record: ComparisonRecord, features: Iterable[str] = ()
) -> str:
    """The whole file. `features`: the encoders' panel as the page drew it, where it was kept."""
    clip = record.clip or "a clip"
    parts = [
        f"<header class='masthead'><h1>{escape(clip)}, every engine</h1><p>{escape(record.made)} · "
        f"run {escape(record.run)}</p></header>",
        section("", render_headline(summarise(comparison))),
        section("", render_lanes(comparison)),
        section(
            "Where the time went",
            timings.render_legend()
            + timeline.render_timeline(comparison)
            + timings.render_timings(comparison),
        ),
        section("How far the words are apart", scores.render_scores(comparison)),
        section("What the encoders made of it", "".join(features)),
        section("Reference", render_reference(record.reference)),
        section("How it was made", render_facts(list_facts(record))),
    ]
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(clip)}, every engine</title>"
        f"<style>{read_style()}{COLOURS}</style></head>"
        f'<body class="gradio-container"><main class="report">{"".join(parts)}</main></body>'
        "</html>\n"
    )


def read_style() -> str:
    """The page's sheet; nothing in it names another file or host."""
    return STYLE.read_text(encoding="utf-8")


def section(title: str, body: str) -> str:
    """A titled part, or nothing where there is no body."""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section class="{"sheet" if title else ""}">{heading}{body}</section>' if body else ""


def render_lanes(comparison: Comparison) -> str:
    """The lanes as on the page, with transcripts to read instead of to click."""
    body = "".join(render_lane(lane, comparison) for lane in comparison.lanes)
    absent = "".join(lanes.render_absent(status) for status in comparison.absent)
    return f'<div class="lanes">{body}</div>{absent}'


def render_lane(lane: Lane, comparison: Comparison) -> str:
    """One engine's lane."""
    opening, head, state, _, *rest = lanes.list_lane(lane, comparison)
    return "".join([opening, head, state, render_transcript(lane), *rest])


def render_transcript(lane: Lane) -> str:
    """All that an engine wrote, each segment with its start."""
    rows = "".join(render_segment(segment) for segment in lane.segments)
    if not rows:
        reason = lane.reason or ("No speech was found." if lane.transcript else "Nothing written.")
        rows = f'<p class="none">{escape(reason)}</p>'
    return f'<div class="transcript"><div>{rows}</div></div>'


def render_segment(segment: Segment) -> str:
    """One segment, and the times of its words where they are known."""
    words = "".join(
        f"<ruby>{escape(word.text)}<rt>{word.start:.1f}</rt></ruby> "
        for word in segment.words or ()
    )
    kind = " timed" if segment.words else ""
    return (
        f'<p class="segment{kind}"><time>{format_clock(segment.start)}</time>'
        f"<span>{words or escape(segment.text.strip())}</span></p>"
    )


def render_reference(reference: str | None) -> str:
    """The words really spoken, where they are known."""
    if reference is None:
        return ""
    return f"<p>{escape(reference) or 'Nothing is said in this clip.'}</p>"


def list_facts(record: ComparisonRecord) -> Sequence[tuple[str, str]]:
    """Clip, settings, machine and versions, as pairs of a name and a value."""
    settings, machine = record.settings, record.machine
    versions = [f"{name} {number}" for name, number in machine.versions.items() if number]
    return (
        ("Clip", f"{record.clip}, {record.audio_seconds:.2f} s"),
        ("Model", settings.model),
        ("Language", settings.language or "found by the model"),
        ("Beam size", str(settings.beam_size)),
        ("Schedule", settings.schedule),
        ("Runs of each engine", str(settings.repeats)),
        ("Word times", "yes" if settings.word_timestamps else "no"),
        ("Type on the GPU", settings.gpu_dtype),
        ("Processor", f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads"),
        ("GPU", machine.gpu or "none"),
        ("Memory", f"{machine.memory_bytes / 2**30:.0f} GiB"),
        ("System", machine.system),
        ("Versions", ", ".join([*versions, f"Python {machine.python}"])),
        ("Run", record.run),
    )


def render_facts(facts: Iterable[tuple[str, str]]) -> str:
    """The pairs as a table."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in facts
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'

"""One visitor's comparison: from what the controls hold to what the panels show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from demo import lanes
from demo.compare import Run
from demo.histograms import render_features
from demo.runs import Runs
from demo.samples import Sample
from demo.snapshot import Comparison, Settings, Status
from demo.timings import draw_timings
from engines.base import Clip, Dtype, Engine, Options

STOPPED_WAITING = "Stopped before its turn came."


@dataclass(frozen=True)
class Backend:
    """What the page asks of the engine side; tests put fakes here.

    `get(key, model, dtype)` gives a shared engine, `load_clip(path)` a clip; both raise
    `EngineError` with a sentence for the visitor. `own_checkpoints`: whether a visitor may name a
    checkpoint file on this machine; only where the visitor is the machine's own user.
    """

    statuses: Callable[[], Sequence[Status]]
    get: Callable[[str, str, Dtype], Engine]
    models: Callable[[], Sequence[str]]
    load_clip: Callable[[str], Clip]
    samples: Path
    own_checkpoints: bool = False


@dataclass(frozen=True)
class Wish:
    """What one click on Compare asks for: a sample or a file, and the settings."""

    sample: Sample | None
    upload: str | None
    settings: Settings

    @property
    def path(self) -> str | None:
        """The clip's file, if any."""
        return str(self.sample.path) if self.sample else self.upload

    def find_fault(self) -> str | None:
        """Why it can't be granted, as a sentence."""
        if self.path is None:
            return "There is no clip yet: choose a sample, upload a file, or record one."
        return None if self.settings.engines else "Choose at least one engine."

    def make_run(self, backend: Backend) -> Run:
        """The run it asks for."""
        path = self.path or ""
        return Run(
            self.settings,
            backend.statuses(),
            backend.get,
            lambda: backend.load_clip(path),
            clip_name=self.sample.title if self.sample else Path(path).name,
            reference=self.sample.reference if self.sample else None,
        )


class Painter:
    """Turns snapshots into the panels' values, leaving alone what didn't change.

    Charts change only when another lane finishes, so they are drawn and sent only then.
    """

    def __init__(self) -> None:
        self._done: tuple[str, ...] | None = None

    def paint(self, comparison: Comparison) -> list[Any]:
        """Values in the order of `page.Panels.outputs`."""
        done = tuple(lane.key for lane in comparison.done)
        fresh, self._done = done != self._done, done
        running = not comparison.finished
        return [
            gr.update(interactive=not running),
            gr.update(interactive=running),
            render_summary(lanes.summarise(comparison), comparison.refusal is not None),
            lanes.render_lanes(comparison),
            draw_timings(comparison) if fresh else gr.skip(),
            render_features(comparison) if fresh else gr.skip(),
        ]


def render_summary(sentence: str, alert: bool = False) -> str:
    """The line above the lanes, spoken by screen readers when it changes."""
    kind, role = (" alert", "alert") if alert else ("", "status")
    sign = '<span aria-hidden="true">⚠ </span>' if alert else ""
    return f'<p class="summary{kind}" role="{role}">{sign}{escape(sentence)}</p>'


def refuse(sentence: str, alert: bool = True) -> list[Any]:
    """The panels' values when a run can't start: the reason, and all else as it was."""
    return [
        gr.update(interactive=True),
        gr.update(interactive=False),
        render_summary(sentence, alert),
        gr.skip(),
        gr.skip(),
        gr.skip(),
    ]


def read_settings(
    engines: Sequence[str],
    model: str,
    language: str,
    beam: int,
    schedule: str,
    words: bool,
    gpu_dtype: Dtype,
) -> Settings:
    """What the controls hold, as the record that every lane gets."""
    return Settings(
        engines=tuple(engines),
        model=model,
        options=Options(
            language=language or None,
            beam_size=int(beam) if int(beam) > 1 else None,
            word_timestamps=words,
        ),
        schedule="parallel" if schedule == "parallel" else "one at a time",
        gpu_dtype=gpu_dtype,
    )


def advise(model: str) -> Any:
    """The summary when a visitor brings a clip: nano would write nonsense of a real voice."""
    if model != "nano":
        return gr.skip()
    return render_summary(
        "nano knows only synthetic speech: for a real voice choose an official model."
    )


def start_waiting(ahead: int) -> list[Any]:
    """Buttons and summary between the click and the run's first snapshot."""
    others = "1 comparison is" if ahead == 1 else f"{ahead} comparisons are"
    sentence = f"Waiting: {others} ahead of yours." if ahead else "Starting."
    return [gr.update(interactive=False), gr.update(interactive=True), render_summary(sentence)]


def stop_waiting() -> list[Any]:
    """Stop button and summary of a run that will never start; its turn frees the rest."""
    return [gr.update(interactive=False), render_summary(STOPPED_WAITING)]


def free_buttons() -> list[Any]:
    """Buttons after a run, even one that broke."""
    return [gr.update(interactive=True), gr.update(interactive=False)]


def run_comparison(
    backend: Backend, runs: Runs, visitor: str, ticket: int, wish: Wish
) -> Iterator[list[Any]]:
    """Grant a wish whose turn has come: yield the panels' values until the last lane rests."""
    if not runs.take_turn(visitor, ticket):
        yield refuse(STOPPED_WAITING, alert=False)
        return
    if fault := wish.find_fault():
        yield refuse(fault)
        return
    run, painter = wish.make_run(backend), Painter()
    runs.enter(visitor, run)
    try:
        for comparison in run.snapshots():
            yield painter.paint(comparison)
    finally:
        run.stop()
        runs.leave(visitor, run)

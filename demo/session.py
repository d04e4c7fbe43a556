"""One visitor's comparison: from what the controls hold to what the panels show."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo import tidy
from demo.compare import Run
from demo.keepsakes import Keepsakes, Kept
from demo.lab import Laboratory
from demo.panels import PANELS as TABLE
from demo.panels.headline import Headline, render_headline
from demo.runs import STOPPED_WAITING, Caller, Place, Refused, Runs, Sort, Standing, in_turn
from demo.samples import Sample
from demo.snapshot import Comparison, Settings, Status, halt
from engines.base import Clip, Dtype, Engine, Options

CLIP_GONE = "This clip is no longer here, an hour after its last use: upload it again."


@dataclass(frozen=True)
class Backend:
    """What the page asks of the engine side; tests put fakes here.

    `get(key, model, dtype)` gives a shared engine, `load_clip(path, stopped)` a clip; both raise
    `EngineError` with a sentence for the visitor. `give_back(engine)` hears that a run is done with
    an engine. `own_checkpoints`: whether a visitor may name a
    checkpoint file on this machine; only where the visitor is the machine's own user.
    `laboratory`: what the microscope and the fault lab ask; without it the page has neither.
    """

    statuses: Callable[[], Sequence[Status]]
    get: Callable[[str, str, Dtype], Engine]
    models: Callable[[], Sequence[str]]
    load_clip: Callable[[str, Callable[[], bool]], Clip]
    samples: Path
    own_checkpoints: bool = False
    laboratory: Laboratory | None = None
    give_back: Callable[[Engine], None] = lambda engine: None


@dataclass(frozen=True)
class Wish:
    """What one click on Compare asks for: a sample or a file, and the settings.

    `controls`: what the controls held, in their order, to be shown again after a reload.
    """

    sample: Sample | None
    upload: str | None
    settings: Settings
    controls: tuple[Any, ...] = ()

    @property
    def path(self) -> str | None:
        """The clip's file, if any."""
        return str(self.sample.path) if self.sample else self.upload

    def find_fault(self) -> str | None:
        """Why it can't be granted, as a sentence."""
        if self.path is None:
            return "There is no clip yet: choose a sample, upload a file, or record one."
        if not Path(self.path).is_file():
            return CLIP_GONE
        return None if self.settings.engines else "Choose at least one engine."

    @property
    def sort(self) -> Sort:
        """What tells how long it takes: most of all the model and the clip."""
        clip = self.sample.key if self.sample else "own"
        return ("comparison", self.settings.model, clip, self.settings)

    def make_run(self, backend: Backend) -> Run:
        """The run it asks for."""
        path = self.path or ""
        return Run(
            self.settings,
            backend.statuses(),
            backend.get,
            partial(backend.load_clip, path),
            clip_name=self.sample.title if self.sample else Path(path).name,
            reference=self.sample.reference if self.sample else None,
            clip_id=self.clip_id,
            give_back=backend.give_back,
        )

    @property
    def clip_id(self) -> str:
        """What `nameClip` of `assets/page.js` says while this clip is in the player."""
        if self.sample:
            return self.sample.key
        return "/".join(Path(self.upload or "").parts[-2:])


class Painter:
    """Turns snapshots into the panels' values, leaving alone what didn't change.

    Charts are drawn twice: empty at the start and full at the end. Between them nothing but the
    lanes is drawn, so that no engine's time pays for another's charts.
    """

    def __init__(self) -> None:
        self._drawn: bool | None = None

    def paint(self, comparison: Comparison) -> list[Any]:
        """Values in the order of `page.Panels.outputs`."""
        fresh, self._drawn = comparison.finished != self._drawn, comparison.finished
        charts = draw_charts(comparison) if fresh else skip(CHARTS)
        return [*self.announce(comparison)[:-CHARTS], *charts]

    def announce(self, comparison: Comparison) -> list[Any]:
        """The same values but for the charts, which take a moment to draw."""
        running = not comparison.finished
        return [
            gr.update(interactive=not running),
            gr.update(interactive=running),
            *(panel.render(comparison) for panel in TABLE if panel.live),
            *skip(CHARTS),
        ]


CHARTS = sum(not panel.live for panel in TABLE)
PANELS = 2 + len(TABLE)
"""How many panels `draw_charts` fills, and how many there are, the two buttons included."""


def draw_charts(comparison: Comparison) -> list[Any]:
    """The panels that aren't live, which come after those that are."""
    return [panel.render(comparison) for panel in TABLE if not panel.live]


def skip(count: int) -> list[Any]:
    """Values that leave so many panels as they are."""
    return [gr.skip() for _ in range(count)]


def refuse(sentence: str, alert: bool = True) -> list[Any]:
    """The panels' values when a run can't start: the reason, and all else as it was."""
    return [
        gr.update(interactive=True),
        gr.update(interactive=False),
        render_headline(Headline(sentence, alert=alert)),
        *skip(PANELS - 3),
    ]


def read_settings(
    engines: Sequence[str],
    model: str,
    language: str,
    beam: int,
    schedule: str,
    words: bool,
    gpu_dtype: Dtype,
    repeats: int = 1,
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
        repeats=int(repeats),
    )


def advise(model: str) -> Any:
    """The summary when a visitor brings a clip: nano would write nonsense of a real voice."""
    if model != "base":
        return gr.skip()
    return render_headline(
        Headline("nano knows only synthetic speech: for a real voice choose an official model.")
    )


def start_waiting(standing: Standing) -> list[Any]:
    """Buttons and summary between the click and the run's first snapshot."""
    said = standing.describe() if standing.ahead else ("Starting.",)
    return [
        gr.update(interactive=False),
        gr.update(interactive=True),
        render_headline(Headline(*said)),
    ]


def go_on_waiting(standing: Standing) -> list[Any]:
    """The panels' values while a run waits: its place and the expected wait, and all else as is."""
    headline = render_headline(Headline(*standing.describe()))
    return [*skip(2), headline, *skip(PANELS - 3)]


def stop_waiting() -> list[Any]:
    """Stop button and summary of a run that will never start; its turn frees the rest."""
    return [gr.update(interactive=False), render_headline(Headline(STOPPED_WAITING))]


def free_buttons() -> list[Any]:
    """Buttons after a run, even one that broke."""
    return [gr.update(interactive=True), gr.update(interactive=False)]


async def run_in_turn(
    backend: Backend,
    runs: Runs,
    caller: Caller,
    ticket: int,
    wish: Wish,
    keep: Callable[[Kept], None] = lambda kept: None,
) -> AsyncGenerator[list[Any], None]:
    """Grant a wish: yield the panels' values while it waits, and until the last lane rests."""
    if fault := wish.find_fault():
        runs.stop(caller.visitor)
        yield refuse(fault)
        return

    tidy.touch(wish.upload)

    def work(place: Place) -> Generator[list[Any], None, None]:
        return run_comparison(backend, runs, place, wish, keep)

    steps = in_turn(runs, caller, wish.sort, ticket, go_on_waiting, work)
    try:
        async with aclosing(steps):
            async for values in steps:
                yield values
    except Refused as refusal:
        yield refuse(str(refusal), refusal.alert)


def run_comparison(
    backend: Backend,
    runs: Runs,
    place: Place,
    wish: Wish,
    keep: Callable[[Kept], None] = lambda kept: None,
) -> Generator[list[Any], None, None]:
    """Grant a wish whose turn has come: yield the panels' values until the last lane rests.

    What is finished is handed to `keep`, so that a reload finds it again.
    """
    run, painter, done = wish.make_run(backend), Painter(), 0
    runs.enter(place, run)
    try:
        for comparison in run.snapshots():
            if comparison.finished:
                if len(comparison.done) == len(comparison.lanes):
                    runs.learn(place)
                yield painter.announce(comparison)
            values = painter.paint(comparison)
            if comparison.finished:
                drawn = (values[-1],)
                keep(Kept(wish.controls, tuple(values), result=comparison, features=drawn))
            elif len(comparison.done) > done:
                done = len(comparison.done)
                keep(Kept(wish.controls, comparison=halt(comparison)))
            yield values
        # Gradio sends a generator's last values once more, whole: let these be none.
        yield skip(PANELS)
    finally:
        run.stop()


def restore(keepsakes: Keepsakes, visit: str, controls: int) -> list[Any]:
    """Controls and panels as a visit left them when its page was reloaded; else as they are."""
    kept = keepsakes.find(visit)
    if kept is None:
        return skip(controls + PANELS)
    values = Painter().paint(kept.comparison) if kept.comparison else list(kept.values)
    held = [None if tidy.is_gone(value) else value for value in kept.controls]
    return [*held, *values]

"""A panel of the laboratory at work: its errand waits for its turn, runs, stops and is shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from demo import tidy
from demo.errand import Errand, View
from demo.keepsakes import READ_VISIT, Keepsakes
from demo.runs import STOPPED_WAITING, Caller, Place, Refused, Runs, Standing, in_turn, name_caller
from demo.samples import Sample
from engines.base import EngineError

NO_CLIP = "There is no clip yet: choose a sample, upload a file, or record one."


@dataclass(frozen=True)
class Bench:
    """One panel's components: what it is told, its buttons, and what it shows."""

    choices: tuple[gr.components.Component, ...]
    start: gr.Button
    stop: gr.Button
    status: gr.HTML
    result: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        """As `paint` returns their values."""
        return [self.start, self.stop, self.status, self.result]

    def kept(self) -> list[gr.components.Component]:
        """What a reload brings back."""
        return [*self.choices, self.status, self.result]


# What is shown.


def render_status(
    sentence: str, share: float | None = None, alert: bool = False, clock: str = ""
) -> str:
    """The line above a panel and its bar, as tall when there is none."""
    kind, role = (" alert", "alert") if alert else ("", "status")
    mark = '<span aria-hidden="true">⚠ </span>' if alert else ""
    bar = "" if share is None else f'<span style="width:{100 * share:.0f}%"></span>'
    shown = "bar" if share is not None else "bar bar--none"
    return (
        f'<div class="errand{kind}"><p><span role="{role}">{mark}{escape(sentence)}</span>'
        f'<span class="clock" aria-hidden="true">{clock}</span></p>'
        f'<div class="{shown}">{bar}</div></div>'
    )


def paint(
    view: View[Any], render: Callable[[Any], str], summary: Callable[[Any], str]
) -> list[Any]:
    """Values in the order of `Bench.outputs`; the panel changes only when there is a result."""
    running = view.state == "running"
    buttons = [gr.update(interactive=not running), gr.update(interactive=running)]
    clock = f"{view.seconds:.1f} s"
    if running:
        what = view.what[:1].upper() + view.what[1:]
        return [*buttons, render_status(f"{what} …", view.share, clock=clock), gr.skip()]
    if view.state == "stopped":
        return [*buttons, render_status("Stopped."), gr.skip()]
    if view.state == "failed":
        return [*buttons, render_status(view.reason, alert=True), gr.skip()]
    return [*buttons, render_status(summary(view.result), clock=clock), render(view.result)]


def refuse(sentence: str, alert: bool = True) -> list[Any]:
    """The values when nothing can start: the reason, and the panel as it was."""
    status = render_status(sentence, alert=alert)
    return [gr.update(interactive=True), gr.update(interactive=False), status, gr.skip()]


def announce(standing: Standing) -> list[Any]:
    """Buttons and status between the click and the first view."""
    sentence = " ".join(standing.describe()).strip() if standing.ahead else "Starting."
    return [gr.update(interactive=False), gr.update(interactive=True), render_status(sentence)]


def go_on_waiting(standing: Standing) -> list[Any]:
    """The values while it waits: its place and the expected wait."""
    return [*announce(standing), gr.skip()]


# What runs.


@dataclass(frozen=True)
class Desk:
    """What stands behind a panel: how to make its errand, and how to show what it brings."""

    name: str
    runs: Runs
    keepsakes: Keepsakes
    by_key: Mapping[str, Sample]
    make: Callable[[Sequence[Any], str, str, str], Errand[Any]]
    render: Callable[[Any], str]
    summary: Callable[[Any], str]

    def find_clip(self, sample: str, audio: str | None) -> str | None:
        """The path of the page's clip, if it has one."""
        return str(self.by_key[sample].path) if sample in self.by_key else audio

    def name_caller(self, request: gr.Request) -> Caller:
        """One browser tab at this panel: each panel waits and stops by itself."""
        return name_caller(request, self.name)

    async def run(
        self,
        caller: Caller,
        visit: str,
        ticket: int,
        *told: Any,
    ) -> AsyncGenerator[list[Any], None]:
        """The errand: yield the panel's values while it waits, and until it rests.

        `told`: what the panel's choices hold, then the page's clip, model and language.
        """
        *choices, sample, audio, model, language = told
        path = self.find_clip(sample, audio)
        try:
            if path is None:
                raise EngineError(NO_CLIP)
            errand = self.make(choices, path, model, language)
        except EngineError as error:
            self.runs.stop(caller.visitor)
            yield refuse(str(error))
            return

        tidy.touch(path)

        def work(place: Place) -> Generator[list[Any], None, None]:
            return self.follow(errand, place, visit, choices)

        sort = (self.name, model, str(choices), sample)
        steps = in_turn(self.runs, caller, sort, ticket, go_on_waiting, work)
        try:
            async with aclosing(steps):
                async for values in steps:
                    yield values
        except Refused as refusal:
            yield refuse(str(refusal), refusal.alert)

    def follow(
        self, errand: Errand[Any], place: Place, visit: str, choices: Sequence[Any]
    ) -> Generator[list[Any], None, None]:
        """The errand whose turn has come: yield the panel's values until it rests."""
        self.runs.enter(place, errand)
        try:
            for view in errand.views():
                values = paint(view, self.render, self.summary)
                if view.state == "done":
                    self.runs.learn(place)
                    self.keepsakes.keep_panel(visit, self.name, (*choices, *values[2:]))
                yield values
            # Gradio sends a generator's last values once more, whole: let these be none.
            yield [gr.skip() for _ in values]
        finally:
            errand.stop()


def connect_bench(
    page: gr.Blocks,
    bench: Bench,
    desk: Desk,
    clip: Sequence[gr.components.Component],
) -> None:
    """A panel's buttons, with the manners of the comparison's."""
    ticket, visit = gr.Number(visible=False, precision=0), gr.Textbox(visible=False)
    reloaded, filled = gr.Checkbox(visible=False), gr.Checkbox(visible=False)
    quick: dict[str, Any] = {
        "queue": False,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    panel = bench.result.elem_id
    look_up = f"(visit, filled, ...told) => [nameVisit(), isFilled('#{panel}'), ...told]"

    def begin(request: gr.Request, visit: str, filled: bool, *told: Any) -> list[Any]:
        ticket = desk.runs.draw_ticket(desk.name_caller(request).visitor)
        standing = desk.runs.count_ahead()
        return [visit, ticket, *announce(standing), gr.skip()]

    async def run(
        request: gr.Request, visit: str, ticket: int, *told: Any
    ) -> AsyncIterator[list[Any]]:
        steps = desk.run(desk.name_caller(request), visit, ticket, *told)
        async with aclosing(steps):
            async for values in steps:
                yield values

    def stop(request: gr.Request) -> list[Any]:
        waited = desk.runs.stop(desk.name_caller(request).visitor)
        if not waited:
            return [gr.skip(), gr.skip()]
        return [gr.update(interactive=False), render_status(STOPPED_WAITING)]

    def leave(request: gr.Request) -> None:
        desk.runs.stop(desk.name_caller(request).visitor)

    def reload(visit: str, reloaded: bool) -> list[Any]:
        kept = desk.keepsakes.find_panel(visit, desk.name) if reloaded else None
        return list(kept) if kept is not None else [gr.skip() for _ in bench.kept()]

    begun = bench.start.click(
        begin,
        [visit, filled, *bench.choices, *clip],
        [visit, ticket, *bench.outputs()],
        js=look_up,
        **quick,
    )
    ran = begun.then(
        run,
        [visit, ticket, *bench.choices, *clip],
        bench.outputs(),
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,  # `Runs` is the queue
    )
    ran.then(
        lambda: [gr.update(interactive=True), gr.update(interactive=False)],
        None,
        [bench.start, bench.stop],
        **quick,
    )
    bench.stop.click(stop, None, [bench.stop, bench.status], **quick)
    page.unload(leave)
    page.load(reload, [visit, reloaded], bench.kept(), js=READ_VISIT, **quick)

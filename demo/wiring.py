"""What every panel that starts a job has in common: its buttons, status, saving and reloading.

Values travel by name, never by position: a listener returns `{component: value}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from demo import uploads
from demo.jobs import (
    STOPPED_WAITING,
    JobQueue,
    Refused,
    Saved,
    SavedResults,
    Task,
    Waiting,
    name_caller,
    run_job,
)
from demo.request import RequestError

QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""For listeners that only look something up."""

START = "async (visit, ...held) => { await clipArrives(); return [nameVisit(), ...held]; }"
"""At the click: once a recording just made is on the server. Functions of `assets/page.js`."""

Component = gr.components.Component
Drawn = dict[str, Any]
"""Values of a panel's outputs by name; those left out stay as they are."""


@dataclass(frozen=True)
class JobPanel:
    """A panel that starts jobs.

    `inputs` and `outputs` by name; `status` is the output that also says why a job can't start, as
    `say(sentence, note, alert)` draws it. `make(held)` turns what the inputs hold into a task, or
    raises `RequestError`. `draw(snapshot, first)` yields what to show of a snapshot, perhaps in
    several steps.
    """

    name: str
    start: gr.Button
    stop: gr.Button
    inputs: Mapping[str, Component]
    outputs: Mapping[str, Component]
    status: str
    make: Callable[[dict[str, Any]], Task]
    draw: Callable[[Any, bool], Iterable[Drawn]]
    say: Callable[[str, str, bool], str]

    def all_outputs(self) -> list[Component]:
        """The buttons and what a job fills."""
        return [self.start, self.stop, *self.outputs.values()]

    def buttons(self, running: bool) -> dict[Component, Any]:
        """Which of the two can be pressed."""
        return {
            self.start: gr.update(interactive=not running),
            self.stop: gr.update(interactive=running),
        }

    def show(self, drawn: Drawn, running: bool = True) -> dict[Component, Any]:
        """Values by component."""
        named = {self.outputs[name]: value for name, value in drawn.items()}
        return {**self.buttons(running), **named}

    def tell(self, sentence: str, note: str = "", alert: bool = False) -> Drawn:
        """A sentence in the panel's status."""
        return {self.status: self.say(sentence, note, alert)}


def connect_panel(
    page: gr.Blocks, panel: JobPanel, queue: JobQueue, saved: SavedResults, visit: gr.Textbox
) -> None:
    """Tie a panel's buttons to its jobs. `visit`: where the tab's name goes."""
    names = list(panel.inputs)

    def begin(request: gr.Request, visit_name: str) -> dict[Component, Any]:
        waiting = queue.note_click(name_caller(request, panel.name).visitor)
        said = waiting.describe() if waiting.ahead else ("Starting.",)
        return {visit: visit_name, **panel.show(panel.tell(*said))}

    async def run(
        request: gr.Request, visit_name: str, *values: Any
    ) -> AsyncIterator[dict[Component, Any]]:
        held = dict(zip(names, values, strict=True))
        caller = name_caller(request, panel.name)
        try:
            uploads.touch(held.get("audio"))
            step = draw_and_save(panel, held, partial(saved.save, visit_name, panel.name))
            steps = run_job(queue, caller, panel.make(held), step, clicked=True)
            async with aclosing(steps):
                async for drawn in steps:
                    yield drawn
        except RequestError as error:
            queue.stop(caller.visitor)
            yield panel.show(panel.tell(str(error), alert=True), running=False)
        except Refused as refusal:
            yield panel.show(panel.tell(str(refusal), alert=refusal.alert), running=False)
        # Gradio sends a generator's last values once more, whole: let these be none.
        yield {panel.start: gr.skip()}

    def stop(request: gr.Request) -> dict[Component, Any]:
        if queue.stop(name_caller(request, panel.name).visitor):
            status = panel.show(panel.tell(STOPPED_WAITING))
            return {**status, panel.stop: gr.update(interactive=False), panel.start: gr.skip()}
        return {panel.stop: gr.skip()}

    def leave(request: gr.Request) -> None:
        queue.stop(name_caller(request, panel.name).visitor)

    begun = panel.start.click(begin, visit, [visit, *panel.all_outputs()], js=START, **QUICK)
    ran = begun.then(
        run,
        [visit, *panel.inputs.values()],
        panel.all_outputs(),
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,  # `JobQueue` is the queue
    )
    ran.then(lambda: panel.buttons(running=False), None, [panel.start, panel.stop], **QUICK)
    panel.stop.click(stop, None, panel.all_outputs(), **QUICK)
    page.unload(leave)


def draw_and_save(
    panel: JobPanel, held: dict[str, Any], save: Callable[[Saved], None]
) -> Callable[[Any], Iterable[dict[Component, Any]]]:
    """How one job's snapshots become values by component, what can be restored being saved."""
    first = True

    def step(snapshot: Any) -> Iterable[dict[Component, Any]]:
        nonlocal first
        if isinstance(snapshot, Waiting):
            yield panel.show(panel.tell(*snapshot.describe()))
            return
        whole: Drawn = {}
        for drawn in panel.draw(snapshot, first):
            whole |= drawn
            yield panel.show(drawn, running=not snapshot.finished)
        first = False
        if (light := snapshot.to_save()) is not None:
            save(Saved(held, light, whole if snapshot.finished else {}))

    return step


def restore(panel: JobPanel, saved: Saved | None) -> dict[Component, Any]:
    """A panel's inputs and outputs as a visit left them, or nothing."""
    if saved is None:
        return {}
    held = {
        panel.inputs[name]: None if uploads.is_gone(value) else value
        for name, value in saved.controls.items()
    }
    drawn = dict(saved.drawn)
    if not drawn:
        for step in panel.draw(saved.snapshot, True):
            drawn |= step
    return {**held, **panel.show(drawn, running=False)}

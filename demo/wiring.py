"""Panels that start jobs: their buttons, status, saving and reloading.

Values travel by name, never by position: a listener returns `{component: value}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo import uploads
from demo.jobs import JobQueue, Refused, Task, Waiting, name_caller
from demo.request import RequestError
from demo.visits import Saved, SavedResults

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For listeners that only look something up."""

Component = gr.components.Component
Drawn = dict[str, Any]
"""Values of a panel's outputs by name; those left out stay as they are."""


@dataclass(frozen=True)
class JobPanel:
    """A panel that starts jobs.

    `inputs` and `outputs` by name; `status` is the output that also says why a job can't start, as
    `render_status(sentence, note, alert)` draws it. `make_task(held)` turns what the inputs hold
    into a task, or raises `RequestError`. `draw(snapshot, whole)` yields what to show of a
    snapshot, perhaps in several steps. `whole`: of the first, and of the first that is finished.
    """

    name: str
    start: gr.Button
    stop: gr.Button
    inputs: Mapping[str, Component]
    outputs: Mapping[str, Component]
    status: str
    make_task: Callable[[dict[str, Any]], Task]
    draw: Callable[[Any, bool], Iterable[Drawn]]
    render_status: Callable[[str, str, bool], str]

    def all_outputs(self) -> list[Component]:
        """List the buttons and what a job fills."""
        return [self.start, self.stop, *self.outputs.values()]

    def show(self, drawn: Drawn, running: bool) -> dict[Component, Any]:
        """Return values by component, and those of the buttons: one of them can be pressed."""
        return {
            self.start: gr.update(interactive=not running),
            self.stop: gr.update(interactive=running),
            **{self.outputs[name]: value for name, value in drawn.items()},
        }

    def show_status(
        self, sentence: str, note: str = "", alert: bool = False, running: bool = False
    ) -> dict[Component, Any]:
        """Return values that show a sentence in the panel's status."""
        return self.show({self.status: self.render_status(sentence, note, alert)}, running)

    def restore(self, saved: Saved | None) -> dict[Component, Any]:
        """Return the inputs and outputs as a visit left them, or nothing."""
        if saved is None:
            return {}
        held = {
            self.inputs[name]: None if uploads.is_gone(value) else value
            for name, value in saved.controls.items()
        }
        drawn = dict(saved.drawn)
        if not drawn:
            for step in self.draw(saved.snapshot, True):
                drawn |= step
        return {**held, **self.show(drawn, running=False)}


def connect_panel(panel: JobPanel, queue: JobQueue, saved: SavedResults, visit: gr.Textbox) -> Any:
    """Tie a panel's buttons to its jobs; return the last step of one, for what follows it.

    `visit`: where the tab's name goes.
    """

    async def run(
        request: gr.Request, visit_name: str, *values: Any
    ) -> AsyncIterator[dict[Component, Any]]:
        held, shown, ended = dict(zip(panel.inputs, values, strict=True)), Drawn(), False

        def draw(snapshot: Any) -> Iterator[dict[Component, Any]]:
            nonlocal ended
            if isinstance(snapshot, Waiting):
                yield panel.show_status(*snapshot.describe(), running=True)
                return
            whole = not shown or snapshot.finished != ended
            ended = snapshot.finished
            for drawn in panel.draw(snapshot, whole):
                shown.update(drawn)
                yield panel.show(drawn, running=not snapshot.over)
            if (light := snapshot.to_save()) is not None:
                drawn = dict(shown) if snapshot.finished else {}
                result = Saved(held, light, drawn, snapshot.finished)
                saved.save(visit_name, panel.name, result)

        try:
            uploads.touch(held.get("audio"))
            task = panel.make_task(held)
            caller = name_caller(request, panel.name)
            async with aclosing(queue.run(caller, task, draw)) as steps:
                async for step in steps:
                    yield step
        except RequestError as error:
            yield panel.show_status(str(error), alert=True)
        except Refused as refusal:
            yield panel.show_status(str(refusal), alert=refusal.alert)
        # Gradio sends a generator's last values once more, whole: let these be none.
        yield {panel.start: gr.skip()}

    def stop(request: gr.Request) -> None:
        queue.stop(name_caller(request, panel.name).visitor)

    # In two steps: the second one's inputs are read once a recording just made is on the server.
    arrives = "async () => { await clipArrives(); return [nameVisit()]; }"  # of `assets/page.js`
    ran = panel.start.click(None, None, visit, js=arrives, **QUICK).then(
        run,
        [visit, *panel.inputs.values()],
        panel.all_outputs(),
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,  # `JobQueue` is the queue
    )
    panel.stop.click(stop, None, None, **QUICK)
    return ran.then(lambda: panel.show({}, running=False), None, [panel.start, panel.stop], **QUICK)


def connect_leaving(page: gr.Blocks, panels: Sequence[JobPanel], queue: JobQueue) -> None:
    """Stop the jobs of a tab that closes, and of a program that leaves while its call runs."""

    def leave(request: gr.Request) -> None:
        for name in ("", *(panel.name for panel in panels)):
            queue.stop(name_caller(request, name).visitor)

    page.unload(leave)

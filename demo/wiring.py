"""Panels that start jobs: their buttons, status, saving and reloading.

Values travel by name, never by position: a listener returns `{component: value}`.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from html import escape
from typing import Any, Generic

import gradio as gr

from demo import uploads
from demo.job_snapshot import AnySnapshot
from demo.jobs import Caller, JobQueue, Refused, Task, Waiting, name_caller
from demo.rules import RequestError
from demo.visits import Follower, LiveJob, Saved, SavedResults, follow

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For listeners that only look something up."""

LONG: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,  # `JobQueue` is the queue
}
"""For listeners that follow jobs."""

Component = gr.components.Component
Drawn = dict[str, Any]
"""Values of a panel's outputs by name; those left out stay as they are."""


@dataclass(frozen=True)
class JobPanel(Generic[AnySnapshot]):
    """A panel that starts jobs.

    `inputs` and `outputs` by name; `status` is the output that also says why a job can't start, as
    `render_status(sentence, note, alert)` draws it. `make_task(values)` turns what the inputs hold
    into a task, or raises `RequestError`. `draw(snapshot, whole)` yields what to show of a
    snapshot, perhaps in several steps. `whole`: of the first, and of the first that is finished.
    """

    name: str
    start: gr.Button
    stop: gr.Button
    inputs: Mapping[str, Component]
    outputs: Mapping[str, Component]
    status: str
    make_task: Callable[[dict[str, Any]], Task[AnySnapshot]]
    draw: Callable[[AnySnapshot, bool], Iterable[Drawn]]
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

    def restore(self, saved: Saved[AnySnapshot] | None) -> dict[Component, Any]:
        """Return the inputs and outputs as a visit left them, or nothing."""
        if saved is None:
            return {}
        drawn = saved.drawn or self.draw_whole(saved.snapshot)
        return {**self.hold(saved.controls), **self.show(drawn, running=False)}

    def draw_whole(self, snapshot: AnySnapshot) -> Drawn:
        """Draw all that there is to show of a snapshot at once."""
        drawn = Drawn()
        for step in self.draw(snapshot, True):
            drawn |= step
        return drawn

    def hold(self, controls: dict[str, Any]) -> dict[Component, Any]:
        """Return the inputs as they were, without clips that are gone."""

        def keep(value: Any) -> Any:
            if isinstance(value, list):
                return [each for each in value if not uploads.is_gone(each)]
            return None if uploads.is_gone(value) else value

        return {self.inputs[name]: keep(value) for name, value in controls.items()}


def build_job(
    title: str, name: str, ready: str, enabled: bool, result: str, placeholder: str
) -> tuple[gr.Button, gr.Button, dict[str, Component]]:
    """A button to start and one to stop, the line that says how it stands, the result's place."""
    with gr.Row(elem_classes="lab-actions"):
        start = gr.Button(
            title, variant="primary", elem_id=name, interactive=enabled, scale=0, min_width=220
        )
        stop = gr.Button("Stop", elem_id=f"{name}-stop", interactive=False, scale=0, min_width=96)
    status = gr.HTML(render_status(ready), elem_id=f"{name}-status", apply_default_css=False)
    shown = gr.HTML(placeholder, elem_id=result, apply_default_css=False)
    return start, stop, {"status": status, "result": shown}


def render_message(sentence: str, note: str, alert: bool) -> str:
    """Render a sentence in an analysis's status."""
    return render_status(f"{sentence} {note}".strip(), alert=alert)


def render_status(
    sentence: str, share: float | None = None, alert: bool = False, clock: str = ""
) -> str:
    """Render the line above a result and its bar, as tall when there is none."""
    kind, role = (" alert", "alert") if alert else ("", "status")
    mark = '<span aria-hidden="true">⚠ </span>' if alert else ""
    bar = "" if share is None else f'<span style="width:{100 * share:.0f}%"></span>'
    shown = "bar" if share is not None else "bar bar--none"
    return (
        f'<div class="job-status{kind}"><p><span role="{role}">{mark}{escape(sentence)}</span>'
        f'<span class="clock" aria-hidden="true">{clock}</span></p>'
        f'<div class="{shown}">{bar}</div></div>'
    )


def build_note(elem_id: str) -> gr.HTML:
    """Build a line for a sentence, which screen readers speak when it changes."""
    template = '<p class="note" role="status">${value}</p>'
    return gr.HTML("", html_template=template, elem_id=elem_id, apply_default_css=False)


def connect_panel(
    panel: JobPanel[AnySnapshot], queue: JobQueue, saved: SavedResults, visit: gr.Textbox
) -> Any:
    """Tie a panel's buttons to its jobs; return the last step of one, for what follows it.

    `visit`: where the tab's name goes.
    """

    async def run(
        request: gr.Request, visit_name: str, *arguments: Any
    ) -> AsyncIterator[dict[Component, Any]]:
        controls = dict(zip(panel.inputs, arguments, strict=True))
        try:
            uploads.touch(controls.get("audio"))
            task = panel.make_task(controls)
        except RequestError as error:
            yield panel.show_status(str(error), alert=True)
        else:
            leave_last(request)
            caller = name_caller(request, panel.name)
            steps = PanelRun(panel, task, saved, visit_name, controls).follow(queue, caller)
            job = LiveJob(visit_name, panel.name, caller.client, controls, steps)
            saved.keep_job(job)
            async with aclosing(follow([job], request.session_hash, queue.streams)) as shown:
                async for step in shown:
                    yield step
        # Gradio sends a generator's last values once more, whole: let these be none.
        yield {panel.start: gr.skip()}

    def list_mine(request: gr.Request) -> list[tuple[LiveJob, Follower]]:
        followed = saved.list_followers(request.session_hash)
        return [(job, follower) for job, follower in followed if job.panel == panel.name]

    def leave_last(request: gr.Request) -> None:
        """Stop what goes on after the last job's results were shown."""
        for job, follower in list_mine(request):
            follower.leave()
            queue.stop(job.client)

    async def stop(request: gr.Request) -> None:
        for job, _ in list_mine(request):
            queue.stop(job.client)

    async def settle(request: gr.Request) -> dict[Component, Any]:
        """Let a job be started, unless the next one already goes on."""
        return {panel.start: gr.skip()} if list_mine(request) else panel.show({}, running=False)

    # In two steps: the second one's inputs are read once a recording just made is on the server.
    arrives = "async () => { await clipArrives(); return [nameVisit()]; }"  # of `assets/page.js`
    ran = panel.start.click(None, None, visit, js=arrives, **QUICK).then(
        run,
        [visit, *panel.inputs.values()],
        panel.all_outputs(),
        trigger_mode="multiple",  # a finished job may have something to add when the next begins
        **LONG,
    )
    panel.stop.click(stop, None, None, **QUICK)
    return ran.then(settle, None, [panel.start, panel.stop], **QUICK)


class PanelRun(Generic[AnySnapshot]):
    """One run of a panel's task: what is shown of it, and saved for the visit.

    `controls`: what the panel's inputs held.
    """

    def __init__(
        self,
        panel: JobPanel[AnySnapshot],
        task: Task[AnySnapshot],
        saved: SavedResults,
        visit: str,
        controls: dict[str, Any],
    ) -> None:
        self._panel, self._task, self._saved = panel, task, saved
        self._visit, self._controls = visit, controls
        self._shown, self._ended, self._waited = Drawn(), False, False

    async def follow(
        self, queue: JobQueue, caller: Caller
    ) -> AsyncGenerator[dict[Component, Any], None]:
        """Run the task in its turn; yield what to show of it."""
        panel = self._panel
        try:
            async with aclosing(queue.run(caller, self._task, self._draw)) as steps:
                async for step in steps:
                    yield step
        except Refused as refusal:
            if self._waited:
                last = self._saved.find(self._visit, panel.name)
                before = last.snapshot if last else self._task.snapshot.as_stopped()
                drawn = (last and last.drawn) or panel.draw_whole(before)
                yield panel.show(drawn, running=False)
            yield panel.show_status(str(refusal), alert=refusal.alert)

    def _draw(self, snapshot: Waiting | AnySnapshot) -> Iterator[dict[Component, Any]]:
        panel = self._panel
        if isinstance(snapshot, Waiting):
            if not self._waited:  # what was asked for stands there, and not what ran before
                yield panel.show(panel.draw_whole(self._task.snapshot), running=True)
            self._waited = True
            yield panel.show_status(*snapshot.describe(), running=True)
            return
        whole = not self._shown or snapshot.finished != self._ended
        self._ended = snapshot.finished
        if self._ended:  # what is exported is there before all of it is drawn
            self._save(snapshot)
        for drawn in panel.draw(snapshot, whole):
            self._shown.update(drawn)
            yield panel.show(drawn, running=not snapshot.finished)
        self._save(snapshot)

    def _save(self, snapshot: AnySnapshot) -> None:
        if (light := snapshot.to_save()) is not None:
            drawn = dict(self._shown) if snapshot.finished else {}
            saved = Saved(self._controls, light, drawn, snapshot.finished)
            self._saved.save(self._visit, self._panel.name, saved)


def connect_return(
    loaded: Any, panels: Sequence[JobPanel[Any]], queue: JobQueue, saved: SavedResults
) -> Any:
    """Let a page that was loaded anew follow the jobs that its visit left; return the last step.

    `loaded`: the step that filled the page.
    """

    async def run(
        request: gr.Request, visit_name: str, was_reloaded: bool
    ) -> AsyncIterator[dict[Component, Any]]:
        named = [saved.find_job(visit_name, panel.name) for panel in panels if was_reloaded]
        jobs = [job for job in named if job is not None]
        async with aclosing(follow(jobs, request.session_hash, queue.streams)) as shown:
            async for step in shown:
                yield step
        yield {panels[0].start: gr.skip()}

    outputs = [output for panel in panels for output in panel.all_outputs()]
    who = [gr.Textbox(visible=False), gr.Checkbox(visible=False)]
    return loaded.then(run, who, outputs, js="() => [nameVisit(), wasReloaded()]", **LONG)


def connect_leaving(page: gr.Blocks, saved: SavedResults, queue: JobQueue) -> None:
    """Stop what a program leaves while its call runs; jobs of a tab that closes are left alone,
    and stop by themselves unless the tab was only loaded anew."""

    async def leave(request: gr.Request) -> None:
        queue.stop(name_caller(request).client)
        for _, follower in saved.list_followers(request.session_hash):
            follower.leave()

    page.unload(leave)

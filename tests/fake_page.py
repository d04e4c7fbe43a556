"""The page over fake engines, served once and set back between tests; comparisons without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import page, server
from demo.comparison import Backend, ComparisonTask
from demo.estimates import PastRuns
from demo.jobs import JobQueue
from demo.limits import Limits
from demo.samples import Sample
from demo.snapshot import Settings
from demo.visits import SavedResults
from engines.analysis.sound import SoundView
from engines.base import Clip, Listener
from tests import fakes
from tests.fake_lab import FakeLab

MODELS = ("base", "tiny.en")


def make_backend(samples: Path, **changes: Any) -> Backend:
    """Fakes behind the page's checks."""
    engine = fakes.FakeEngine()
    asked: dict[str, Any] = {
        "statuses": lambda: fakes.STATUSES,
        "get_engine": lambda key, model, dtype: engine,
        "models": lambda: MODELS,
        "load_clip": fakes.read_fake_clip,
        "samples": samples,
    }
    return Backend(**asked | changes)


def make_task(
    *engines: Any,
    name: str = "clip",
    past_runs: PastRuns | None = None,
    describe_sound: Callable[[Clip, Listener], SoundView] | None = None,
    **settings: Any,
) -> ComparisonTask:
    """A comparison of these engines over six seconds of silence."""
    by_key = {engine.key: engine for engine in engines}
    backend = make_backend(
        Path("nowhere"),
        get_engine=lambda key, model, dtype: by_key[key],
        load_clip=lambda path, listener: fakes.make_clip(),
        past_runs=past_runs or PastRuns(),
        describe_sound=describe_sound,
    )
    asked: dict[str, Any] = {"engines": tuple(by_key), "model": "tiny.en", **settings}
    return ComparisonTask(backend, Settings(**asked), Sample("", name, Path("clip.wav"), None))


class FakePage:
    """A served page at `url`, whose engines, analyses and way to read clips a test may change."""

    def __init__(self, samples: Path, limits: Limits | None = None) -> None:
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_HEARTBEAT_INTERVAL"] = "0.2"  # by which it and its clients see who left
        self.engines: dict[str, Any] = {}
        self.lab = FakeLab()
        self.queue, self.saved = JobQueue(limits), SavedResults()
        self.reset(limits)
        backend = make_backend(
            samples,
            get_engine=lambda key, model, dtype: (
                self.engines.get(f"{key}@{model}") or self.engines[key]
            ),
            load_clip=lambda path, *how: self.load_clip(path, *how),
            analyses=self.lab.analyses(),
            describe_sound=lambda clip, listener: self.describe_sound(clip, listener),
        )
        self.blocks = page.build(backend, self.queue, self.saved)
        _, url, _ = server.serve(
            self.blocks, backend, self.queue, self.saved, prevent_thread_lock=True, quiet=True
        )
        self.url = str(url)

    def reset(self, limits: Limits | None = None) -> None:
        """As if just started: no jobs, no results, engines that say their words at once."""
        self.queue.close()
        streams = self.queue.streams  # which the server counts
        self.queue.__init__(limits)  # type: ignore[misc]
        self.queue.streams = streams
        self.saved.__init__()  # type: ignore[misc]
        self.load_clip: Callable[..., Clip] = fakes.read_fake_clip
        self.describe_sound: Callable[..., SoundView] = fakes.describe_fake_sound
        self.lab.gate.set()
        self.engines.clear()
        self.use(cpu=fakes.FakeEngine(), max_hybrid=fakes.fake_max())

    def use(self, **engines: Any) -> None:
        """Replace some engines, by key, or by lane with a model of its own."""
        self.engines |= engines

    def close(self) -> None:
        self.queue.close()
        self.blocks.close(verbose=False)

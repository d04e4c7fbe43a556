"""Build the page and serve it: `python app.py` opens it in a browser, or prints its address."""

from collections.abc import Callable

from demo import lab, page, serve, session, space
from engines import checkpoints, logs, registry, worker
from engines.analysis import layers
from engines.analysis.fault_catalogue import FAULTS
from engines.base import Clip, Listener
from engines.hardware import why_no_max


def load_clip(path: str, stopped: Callable[[], bool]) -> Clip:
    """Read a clip in a process of its own."""
    listener = Listener()
    listener.stopped = stopped  # type: ignore[method-assign]
    return worker.load_clip(path, listener)


space.settle()
visitors = serve.expect_visitors()
app = page.build(
    session.Backend(
        statuses=registry.statuses,
        get=worker.borrow_engine,
        give_back=worker.release_engine,
        models=checkpoints.names,
        load_clip=load_clip,
        samples=serve.SAMPLES,
        own_checkpoints=serve.serves_only_this_machine(),
        laboratory=lab.Laboratory(
            candidates=layers.candidates,
            look=worker.compare_layers,
            faults=FAULTS,
            run_fault=worker.run_fault,
            why_no_faults=why_no_max,
        ),
    ),
    *visitors,
)


def main() -> None:
    """Start getting the engines ready, and serve."""
    logs.set_up("info")
    worker.start_reader()
    ready = [status.key for status in registry.statuses() if status.available]
    registry.warm(ready, "base", worker.get_engine)
    serve.serve_until_told(
        app,
        registry.statuses,
        *visitors,
        worker.shut_down,
        inbrowser=serve.can_open_browser(),
    )


if __name__ == "__main__":
    main()

"""Build the page and serve it: `python app.py`, then open the address that it prints."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from demo import lab, page, serve, session
from engines import audio, checkpoints, isolation, logs, max_hybrid, microscope, registry
from engines.faults.catalogue import FAULTS, get
from engines.faults.lab import run_fault

app = page.build(
    session.Backend(
        statuses=registry.statuses,
        get=isolation.get,
        models=checkpoints.names,
        load_clip=audio.load_clip,
        samples=serve.SAMPLES,
        own_checkpoints=serve.serves_only_this_machine(),
        laboratory=lab.Laboratory(
            candidates=microscope.candidates,
            look=microscope.look,
            faults=FAULTS,
            run_fault=lambda key, *rest: run_fault(get(key), *rest),
            why_no_faults=max_hybrid.why_no_max,
        ),
    )
)


def main() -> None:
    """Start getting the engines ready, and serve."""
    logs.set_up("info")
    ready = [status.key for status in registry.statuses() if status.available]
    registry.warm(ready, "nano", isolation.get)
    serve.serve(app, registry.statuses)


if __name__ == "__main__":
    main()

"""Build the page and serve it: `python app.py`, then open the address that it prints."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from demo import page, serve, session
from engines import audio, checkpoints, registry

app = page.build(
    session.Backend(
        statuses=registry.statuses,
        get=registry.get,
        models=checkpoints.names,
        load_clip=audio.load_clip,
        samples=serve.SAMPLES,
        own_checkpoints=serve.serves_only_this_machine(),
    )
)


def main() -> None:
    """Start getting the engines ready, and serve."""
    ready = [status.key for status in registry.statuses() if status.available]
    registry.warm(ready, "nano")
    serve.serve(app)


if __name__ == "__main__":
    main()

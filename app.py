"""Build the page and serve it: `python app.py` opens it in a browser, or prints its address."""

from demo import page, server, uploads
from demo.analysis import Analyses
from demo.comparison import Backend
from demo.jobs import JobQueue, SavedResults
from demo.limits import read_limits
from engines import checkpoints, isolation, laboratory, logs, reading, registry

server.set_environment()
uploads.make_folder()
queue, saved = JobQueue(read_limits(server.is_private())), SavedResults()
backend = Backend(
    statuses=registry.statuses,
    get_engine=isolation.borrow,
    release_engine=isolation.give_back,
    models=checkpoints.names,
    load_clip=lambda path, listener: reading.load_clip(path, listener.stopped),
    samples=uploads.publish_samples(server.SAMPLES),
    own_checkpoints=server.is_private(),
    analyses=Analyses(
        candidates=laboratory.candidates,
        compare_layers=laboratory.look,
        faults=laboratory.FAULTS,
        run_fault=laboratory.run_fault,
        why_no_faults=laboratory.why_no_max,
    ),
)
app = page.build(backend, queue, saved)


def main() -> None:
    """Start getting the engines ready, and serve."""
    logs.set_up("info")
    reading.start()
    registry.warm(backend.choices().available, checkpoints.DEFAULT_MODEL, isolation.get)
    server.serve_until_told(
        app, backend, queue, saved, isolation.end_for_good, inbrowser=server.can_open_browser()
    )


if __name__ == "__main__":
    main()

"""Build the page and serve it: `python app.py` opens it in a browser, or prints its address."""

from demo import page, server, uploads
from demo.comparison import Analyses, Backend
from demo.estimates import PastRuns
from demo.jobs import JobQueue
from demo.limits import read_limits
from demo.visits import SavedResults
from engines import hardware, logs, models, registry, worker
from engines.analysis import faults, records

server.set_environment()
uploads.make_folder()
queue, saved = JobQueue(read_limits(server.is_private())), SavedResults()
backend = Backend(
    statuses=registry.statuses,
    get_engine=worker.get_engine,
    keep_engines=worker.keep_engines,
    models=lambda: models.OFFICIAL_MODELS,
    load_clip=worker.load_clip,
    show_clip=worker.show_clip,
    samples=server.SAMPLES,
    own_checkpoints=server.is_private(),
    describe_sound=worker.describe_sound,
    is_lent_gpu=worker.is_lent_gpu,
    analyses=Analyses(
        candidates=records.candidates,
        compare_halves=worker.compare_halves,
        faults=faults.FAULTS,
        run_fault=worker.run_fault,
        why_no_faults=hardware.why_no_max,
        explain=worker.explain,
    ),
    past_runs=PastRuns(hardware.cache_folder() / "past-runs.json"),
)
app = page.build(backend, queue, saved)


def main() -> None:
    """Start getting the engines ready, and serve."""
    logs.set_up("info")
    worker.start_reader()
    registry.warm(backend.choices().standard, models.DEFAULT_MODEL, worker.get_engine)
    server.serve_until_told(app, backend, queue, saved, inbrowser=server.can_open_browser())


if __name__ == "__main__":
    main()

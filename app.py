"""Build the page and serve it: `python app.py` opens it in a browser, or prints its address."""

from demo import lab, page, serve, session, space
from engines import checkpoints, isolation, laboratory, logs, reading, registry

space.settle()
visitors = serve.expect_visitors()
app = page.build(
    session.Backend(
        statuses=registry.statuses,
        get=isolation.borrow,
        give_back=isolation.give_back,
        models=checkpoints.names,
        load_clip=reading.load_clip,
        samples=serve.SAMPLES,
        own_checkpoints=serve.serves_only_this_machine(),
        laboratory=lab.Laboratory(
            candidates=laboratory.candidates,
            look=laboratory.look,
            faults=laboratory.FAULTS,
            run_fault=laboratory.run_fault,
            why_no_faults=laboratory.why_no_max,
        ),
    ),
    *visitors,
)


def main() -> None:
    """Start getting the engines ready, and serve."""
    logs.set_up("info")
    reading.start()
    ready = [status.key for status in registry.statuses() if status.available]
    registry.warm(ready, "base", isolation.get)
    serve.serve_until_told(
        app,
        registry.statuses,
        *visitors,
        isolation.end_for_good,
        inbrowser=serve.can_open_browser(),
    )


if __name__ == "__main__":
    main()

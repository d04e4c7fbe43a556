"""`python -m engines.measure.ready ENGINE MODEL`: one engine made ready in a process of its own.

Prints one JSON object. `entered`, `imported` and `ready` are readings of `time.monotonic`, which
all processes of a machine share; `load` and `compile` are the seconds the engine itself reports.
With `--imports-only` it ends after the imports, having brought the files into memory.
"""

from __future__ import annotations

from time import monotonic

ENTERED = monotonic()


def main(key: str, model: str, imports_only: bool = False) -> int:
    """Import, prepare, print; returns the exit status."""
    import json
    import sys

    from engines import registry
    from engines.base import EngineError

    try:
        engine = registry.get(key, model)
        if "MAX" in engine.encoder:  # imported on first use; here before the clock of `prepare`
            import engines.max_graph.session  # noqa: F401
        imported = monotonic()
        if imports_only:
            return 0
        prepared = engine.prepare()
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    times = {"entered": ENTERED, "imported": imported, "ready": monotonic()}
    print(json.dumps({**times, "load": prepared.load, "compile": prepared.compile}))
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1], sys.argv[2], "--imports-only" in sys.argv[3:]))

"""`python -m engines.measure.ready ENGINE MODEL`: one engine made ready in a process of its own.

Prints one JSON object. `entered`, `imported` and `ready` are readings of `time.monotonic`, which
all processes of a machine share; `load` and `compile` are the seconds the engine itself reports.
`memory_bytes` is what the process has resident, on Linux, beyond what it had after the imports.
With `--imports-only` it ends after the imports, having brought the files into memory.
"""

from __future__ import annotations

from time import monotonic

ENTERED = monotonic()


def main(key: str, model: str, imports_only: bool = False) -> int:
    """Import, prepare, print; returns the exit status."""
    import gc
    import json
    import sys

    from engines import registry
    from engines.base import EngineError

    try:
        engine = registry.get(key, model)
        if "MAX" in engine.encoder:  # imported on first use; here before the clock of `prepare`
            import engines.max_graph.session  # noqa: F401
        imported, before = monotonic(), resident_bytes()
        if imports_only:
            return 0
        prepared = engine.prepare()
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    times = {"entered": ENTERED, "imported": imported, "ready": monotonic()}
    gc.collect()
    after = resident_bytes()
    memory = None if before is None or after is None else after - before
    own = {"load": prepared.load, "compile": prepared.compile, "memory_bytes": memory}
    print(json.dumps({**times, **own}))
    return 0


def resident_bytes() -> int | None:
    """Memory this process has resident, in bytes; None where /proc does not tell."""
    import os

    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1], sys.argv[2], "--imports-only" in sys.argv[3:]))

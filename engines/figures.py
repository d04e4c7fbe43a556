"""`python -m engines.figures`: the figures of README.md and docs/benchmarks.md, from one record.

`make benchmark-save` measures them into docs/benchmark.json; this writes what stands between the
two comments `figures` and `/figures` in both files, and the drawings in docs/images. The same
record gives the same bytes, and a test holds them equal. With `--check` nothing is written, and the
exit status is 1 where something differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engines import registry
from engines.base import EngineError
from engines.measure import cache, charts, clips, encoder, memory, record, start, step, tables
from engines.measure.phrases import (
    between,
    contenders,
    faster,
    figure,
    find,
    known,
    markdown,
    median,
    milliseconds,
    number,
    of,
    pace,
    settings_of,
    title,
    wrap,
)
from engines.measure.record import Record, Result

ROOT = Path(__file__).parents[1]
RECORD = Path("docs") / "benchmark.json"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
OURS = "max_full"
TALK = "talk"
BASELINES = {
    clips.BENCHMARK: registry.BASELINE,
    step.BENCHMARK: step.BASELINE,
    encoder.BENCHMARK: encoder.BASELINE,
    cache.BENCHMARK: step.BASELINE,
    memory.BENCHMARK: memory.BASELINE,
}
"""By benchmark: whom the texts here compare with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engines.figures", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    asked = parser.parse_args(arguments)
    if not (ROOT / RECORD).exists():
        print(f"error: there is no {RECORD}: run `make benchmark-save` first.", file=sys.stderr)
        return 1
    try:
        made = make_all(ROOT)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    old = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in old:
        print(path.relative_to(ROOT))
        if not asked.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
    return int(asked.check and bool(old))


def make_all(root: Path) -> dict[Path, str]:
    """Each file that the record decides, and what it should hold."""
    done = record.read(root / RECORD)
    if done.interrupted:
        raise EngineError(f"{RECORD} was interrupted: run `make benchmark-save` again.")
    check_errors(done)
    check_baselines(done)
    readme, details = root / "README.md", root / "docs" / "benchmarks.md"
    images = root / "docs" / "images"
    return {
        readme: put_between(readme.read_text(encoding="utf-8"), render_short(done)),
        details: put_between(details.read_text(encoding="utf-8"), render_long(done)),
        images / "talk.svg": draw_talk(done),
        images / "kv-cache.svg": cache.draw(done.results),
    }


def check_errors(done: Record) -> None:
    """Raise `EngineError` for a record in which a contender failed: its tables would have gaps."""
    failures = [
        f"{each.contender} in {each.benchmark} ({each.error})"
        for each in done.results
        if each.error
    ]
    if failures:
        raise EngineError(
            f"{RECORD} has failures: {'; '.join(dict.fromkeys(failures))}. Measure again, without "
            "what can't run here."
        )


def check_baselines(done: Record) -> None:
    """Raise `EngineError` where the ratios are to another baseline than the texts here name."""
    for name, expected in BASELINES.items():
        found = done.settings.get(name, {}).get("baseline", expected)
        if found != expected:
            raise EngineError(
                f"{RECORD} compares {name} with {found}, not with {expected}: measure again with "
                f"{expected} among the engines."
            )


def put_between(text: str, figures: str) -> str:
    """The text with the figures between its two comments; raises `EngineError` without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise EngineError(f"The text needs {BEGIN} and {END} once each, around its figures.")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{figures.strip()}\n{END}{rest.split(END)[1]}"


# For the README: ratios first, a few columns.


def render_short(done: Record) -> str:
    """The ratios, the machine and its settings, then a table for each question."""
    parts = [summarise(done), describe(done)]
    sections = (short_talk, short_step, short_encoder, short_start, short_cache, short_memory)
    for section in sections:
        parts.extend(section(done))
    return "\n\n".join(filter(None, parts))


def summarise(done: Record) -> str:
    """The ratios of `max_full` to openai-whisper in a sentence; nothing without any.

    Whole runs count only where both were on the same device, as decoders always are.
    """
    whole, baseline = (find(talk(done), key) for key in (OURS, registry.BASELINE))
    if figure(whole, "device") != figure(baseline, "device"):
        whole = None
    steps = [each for each in of(done, step.BENCHMARK) if each.contender == OURS]
    weights = [each for each in of(done, memory.BENCHMARK) if each.contender == OURS]
    said = []
    if figure(whole, "times_faster"):
        said.append(f"writes the talk {faster(whole)}")
    if ratios := known(steps, "times_faster"):
        said.append(f"takes a decode step {pace(ratios)}")
    if shares := known(steps, "of_plain_read"):
        said.append(f"reads memory in it at {between(shares, '.0%')} of the speed of a plain read")
    if held := known(weights, "of_baseline"):
        said.append(f"keeps weights in {between(held, '.2f')} of the memory")
    if not said:
        return ""
    *first, last = said
    text = f"{', '.join(first)} and {last}" if first else last
    return wrap(f"**Against openai-whisper on the same processor, `{OURS}` {text}.**")


def describe(done: Record) -> str:
    """Where and how it was measured, as a paragraph."""
    where = done.machine
    versions = ", ".join(f"{name} {each}" for name, each in where.versions.items() if each)
    busy = "" if where.load_average is None else f" Load average before: {where.load_average:.1f}."
    return wrap(
        f"Measured on {where.cores} cores of {where.cpu} with {where.memory_bytes / 1e9:.0f} GB, "
        f"{where.gpu or 'no GPU'}, on {done.started[:10]}; {versions}, Python {where.python}; "
        f"{where.threads} threads on every side, float32 but where a name says int8, which rounds "
        f"weights, temperature 0, runs taking turns, medians.{busy}"
    )


def short_step(done: Record) -> Iterator[str]:
    """Milliseconds a token, sizes down and decoders across."""
    results = of(done, step.BENCHMARK)
    if not results:
        return
    settings = settings_of(done, step.BENCHMARK)
    yield title(f"A decode step, {settings['tokens']} tokens", "step", done)
    yield pivot(results, "size", "step", step.BASELINE, share="of_plain_read")
    yield compare_peers(results, "step")
    yield wrap(SIZES_NOTE)
    reads = [each for each in results if each.contender == step.PLAIN_READ and each.seconds]
    if reads:
        each_read = ", ".join(
            f"{each.case['size']} {number(figure(each, 'bytes_read'), '.0f', 1e-6)} MB at "
            f"{number(figure(each, 'bytes_per_second'), '.1f', 1e-9)} GB/s"
            for each in reads
        )
        yield wrap(f"{PLAIN_READ_NOTE} Here: {each_read}.")


SIZES_NOTE = "`nano` is as shipped; the other sizes are OpenAI's dimensions with random weights."
PLAIN_READ_NOTE = (
    f"The limit of a step is the bytes it reads over the memory's bandwidth. *{step.PLAIN_READ}* "
    f"takes that limit in the same turns: it adds up as many bytes as a step of `{OURS}` has to "
    "read, weights as it keeps them, keys and values, and nothing else. What fits in the "
    "processor's cache is quick to read on both sides."
)


def short_encoder(done: Record) -> Iterator[str]:
    """Milliseconds for 30 s of audio."""
    results = of(done, encoder.BENCHMARK)
    if results:
        yield title("The encoder on 30 s of audio", "encoder", done)
        yield pivot(results, "size", "encode", encoder.BASELINE, "max", error=True)


def short_talk(done: Record) -> Iterator[str]:
    """Whole runs of the longest sample."""
    results = talk(done)
    if results:
        words = f"The talk of {talk_seconds(results)}, start to end, greedy"
        yield title(words, "clips", done, f"--clips {TALK} --beams 1")
        yield f"![{words}](docs/images/talk.svg)"
        yield markdown(
            [["", "against `cpu`", "seconds", "real-time factor", "peak MB", "same tokens"]]
            + [
                [
                    f"`{each.contender}`",
                    faster(each),
                    number(each.median("total"), ".2f"),
                    number(each.figures.get("real_time_factor"), ".3f"),
                    number(each.figures.get("peak_memory_bytes"), ".0f", 1e-6),
                    {True: "yes", False: "no"}.get(figure(each, "equal_tokens"), tables.NOTHING),
                ]
                for each in results
            ]
        )
        yield compare_peers(results, "total")
        if any(each.contender.startswith("faster_whisper_") for each in results):
            yield wrap(PEERS_NOTE)


PEERS_NOTE = (
    "`ctranslate2_…` is the library beneath faster-whisper under the loop that all engines here "
    "share; `faster_whisper_…` is the package itself, whose own loop may choose other "
    "tokens, as may weights rounded to int8."
)


def short_start(done: Record) -> Iterator[str]:
    """From a new process to ready."""
    results = of(done, start.BENCHMARK)
    if results:
        yield title("From typing the command to ready", "start", done)
        rows = [["", "cold s", "warm s", "of it loading and compiling, cold s", "warm s"]]
        for key in contenders(results):
            cold, warm = (find(results, key, start=kind) for kind in ("cold", "warm"))
            ready = [median(each, "ready") for each in (cold, warm)]
            rows.append([f"`{key}`", *ready, *(median(each, "prepare") for each in (cold, warm))])
        yield markdown(rows)


def short_cache(done: Record) -> Iterator[str]:
    """With the cache and without it, at the largest number of tokens."""
    results = of(done, cache.BENCHMARK)
    if results:
        tokens = max(int(each.case["tokens"]) for each in results)
        yield title(f"What the cache is worth, {tokens} tokens", "kv-cache", done)
        yield "![Seconds against tokens written](docs/images/kv-cache.svg)"
        head = ["", "times faster than without", "with s", "without s"]
        rows = [[*head, "a step grows with, µs a token", "without, µs a token", "cache MB"]]
        for key in contenders(results):
            both = [find(results, key, cache=kind, tokens=tokens) for kind in cache.CACHES]
            slopes = [number(figure(each, "slope_seconds"), ".1f", 1e6) for each in both]
            speed = number(figure(both[0], "speed_up"), ".1f")
            memory = number(figure(both[0], "cache_bytes"), ".1f", 1e-6)
            seconds = [median(each, "total") for each in both]
            rows.append([f"`{key}`", speed, *seconds, *slopes, memory])
        yield markdown(rows)


def short_memory(done: Record) -> Iterator[str]:
    """What the weights take."""
    results = of(done, memory.BENCHMARK)
    if results:
        yield title("Memory for the weights", "memory", done)
        keys = contenders(results)
        rows = [["", *(f"`{key}` MB" for key in keys), f"`{OURS}` of `{memory.BASELINE}`"]]
        for size in dict.fromkeys(str(each.case["size"]) for each in results):
            cells = [figure(find(results, key, size=size), "weights_bytes") for key in keys]
            share = number(figure(find(results, OURS, size=size), "of_baseline"), ".2f")
            rows.append([size, *(number(each, ".0f", 1e-6) for each in cells), share])
        yield markdown(rows)


def compare_peers(results: Sequence[Result], quantity: str) -> str:
    """How `max_full` stands against each of other projects' engines, over all cases."""
    said: list[str] = []
    for key in contenders(results):
        if key in (*registry.all_keys(), *BASELINES.values(), step.PLAIN_READ):
            continue
        pairs = [
            (each.median(quantity), mine.median(quantity))
            for each in results
            if each.contender == key and (mine := find(results, OURS, **each.case))
        ]
        ratios = [theirs / ours for theirs, ours in pairs if theirs and ours]
        verb = "" if said else f" `{OURS}` is"
        said += [f"against `{key}`{verb} {pace(ratios)}"] if ratios else []
    return wrap(f"A{', '.join(said)[1:]}.") if said else ""


def draw_talk(done: Record) -> str:
    """The talk's seconds as bars, with each one's ratio."""
    bars = [
        (
            each.contender,
            each.median("total") or 0.0,
            ", ".join(filter(None, [f"{each.median('total'):.2f} s", faster(each, "")])),
        )
        for each in talk(done)
        if each.seconds
    ]
    return charts.draw_bars(f"The talk of {talk_seconds(talk(done))}, start to end, seconds", bars)


def talk_seconds(results: Sequence[Result]) -> str:
    """How long the talk itself is."""
    lengths = [each.figures["audio_seconds"] for each in results if each.seconds]
    return f"{number(lengths[0] if lengths else None, '.1f')} s"


def talk(done: Record) -> list[Result]:
    """The greedy results of the longest sample."""
    return [
        each
        for each in of(done, clips.BENCHMARK)
        if each.case.get("clip") == TALK and each.case.get("beam") == 1
    ]


def pivot(
    results: Sequence[Result],
    down: str,
    quantity: str,
    baseline: str,
    ours: str = OURS,
    error: bool = False,
    share: str | None = None,
) -> str:
    """Cases down, contenders across in milliseconds; ours against the baseline first.

    `share`: the figure that says how near ours is to its limit, if there is one.
    """
    keys = contenders(results)
    rows = [["", f"`{ours}` against {baseline}", *(f"{key} ms" for key in keys)]]
    rows[0] += ["relative error"] if error else []
    if share:
        rows[0].insert(2, f"`{ours}` of its limit")
    for case in dict.fromkeys(str(each.case[down]) for each in results):
        cells = [find(results, key, **{down: case}) for key in keys]
        mine = find(results, ours, **{down: case})
        medians = [None if each is None else each.median(quantity) for each in cells]
        row = [case, faster(mine), *map(milliseconds, medians)]
        if share:
            row.insert(2, number(figure(mine, share), ".0%"))
        rows.append(row + ([number(figure(mine, "relative_error"), ".1e")] if error else []))
    return markdown(rows)


# For docs/benchmarks.md: everything.


def render_long(done: Record) -> str:
    """Each benchmark's settings and its whole table."""
    columns: dict[str, Callable[[], Sequence[tables.Column]]] = {
        clips.BENCHMARK: lambda: clips.columns(settings_of(done, clips.BENCHMARK)["baseline"]),
        step.BENCHMARK: lambda: step.COLUMNS,
        encoder.BENCHMARK: lambda: encoder.COLUMNS,
        start.BENCHMARK: lambda: start.COLUMNS,
        cache.BENCHMARK: lambda: cache.COLUMNS,
        memory.BENCHMARK: lambda: memory.COLUMNS,
    }
    parts = [describe(done)]
    for name, of_table in columns.items():
        if results := of(done, name):
            parts += [f"### {name}", list_settings(settings_of(done, name))]
            parts.append(tables.render(of_table(), results))
    return "\n\n".join(parts)


def list_settings(settings: dict[str, Any]) -> str:
    """What was equal on every side, as a line."""
    words = (
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in settings.items()
    )
    return f"Settings: {', '.join(words)}."


if __name__ == "__main__":
    sys.exit(main())

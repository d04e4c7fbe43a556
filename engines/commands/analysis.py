"""The commands `layers` and `faults`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import typer

from engines import logs
from engines.analysis import faults, layers, records
from engines.audio import load_clip
from engines.benchmark.speed import find_clip


def show_layers(
    names: Sequence[str],
    model: str,
    clip: str,
    start: float,
    factor: float | None,
    as_json: bool,
) -> int:
    """Print a comparison of encoders; return 1 when one is past its bound at a stage.

    `names`: spelled ENGINE or ENGINE:TYPE, the baseline first.
    """
    found = layers.compare_layers(names, model, load_clip(find_clip(clip)), start=start)
    if factor is not None:
        found = replace(found, factor=factor)
    if as_json:
        content = {"run": logs.current_run(), **records.as_json(found)}
        typer.echo(json.dumps(content, ensure_ascii=False))
    else:
        typer.echo(records.format_text(found))
    return int(any(found.first_past(encoder.name) for encoder in found.others))


def list_others(baseline: str) -> list[str]:
    """Return the encoders of this machine that are not the baseline's, without its type."""
    key = baseline.split(":")[0]
    return [each.name for each in records.candidates() if each.name.split(":")[0] != key]


def show_faults(
    keys: Sequence[str], model: str, clip: str, language: str | None, as_json: bool
) -> None:
    """Run and print each fault, all of them when none is named."""
    chosen = [faults.get_fault(key).key for key in keys] or [f.key for f in faults.FAULTS]
    sound = load_clip(find_clip(clip))
    for key in chosen:
        found = faults.run_fault(key, model, sound, language)
        text = json.dumps(faults.as_json(found), ensure_ascii=False) if as_json else ""
        typer.echo(text or faults.format_text(found))

"""The commands `layers` and `faults`: encoders compared after every stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import typer

from engines import logs, microscope
from engines.audio import load_clip
from engines.benchmark.speed import find_clip
from engines.examination import Examination
from engines.faults import __main__ as faults
from engines.faults.catalogue import FAULTS
from engines.faults.catalogue import get as get_fault


def compare(names: Sequence[str], model: str, clip: str, start: float = 0.0) -> Examination:
    """Compare encoders, spelled ENGINE or ENGINE:TYPE, with the first, over one window."""
    return microscope.look(names, model, load_clip(find_clip(clip)), start=start)


def show_layers(
    names: Sequence[str],
    model: str,
    clip: str,
    start: float,
    tolerance: float | None,
    as_json: bool,
) -> int:
    """Print a comparison; return 1 when an encoder is past the tolerance."""
    found = compare(names, model, clip, start)
    if tolerance is not None:
        found = replace(found, tolerance=tolerance)
    if as_json:
        content = {"run": logs.current_run(), **microscope.as_json(found)}
        typer.echo(json.dumps(content, ensure_ascii=False))
    else:
        typer.echo(microscope.render_text(found))
    return int(any(found.first_past(specimen.name) for specimen in found.others))


def show_faults(keys: Sequence[str], model: str, clip: str, language: str, as_json: bool) -> None:
    """Run and print each fault, all of them when none is named."""
    chosen = [get_fault(key) for key in keys] or FAULTS
    sound = load_clip(find_clip(clip))
    for fault in chosen:
        found = faults.run_fault(fault, model, sound, language)
        if as_json:
            typer.echo(json.dumps(faults.as_json(found), ensure_ascii=False))
        else:
            typer.echo(faults.render_text(found))

"""Speed against word error rate: a mark for each engine of each run whose words are known."""

from __future__ import annotations

from dataclasses import replace

from demo.panels import speed_accuracy
from tests import fakes
from tests.demo.reading import compare, fail_second, list_figures, read


def test_each_engine_has_its_symbol_and_a_shared_device_shows() -> None:
    raced = replace(compare(reference=fakes.WORDS), clip_name="<b>Clip")
    alone = compare("The compiler turned", schedule="one at a time", reference=fakes.WORDS)
    page = read(speed_accuracy.render([raced, alone, fail_second(alone), compare()]))
    ((cpu, hybrid),) = [figure["data"] for figure in list_figures(page)]
    assert (cpu["x"], cpu["y"]) == ([3.0] * 3, [0.0] * 3)
    assert hybrid["x"] == [6.0, 6.0] and hybrid["y"][0] == 0.0 < hybrid["y"][1]
    assert cpu["marker"]["symbol"] == ["circle-open", "circle", "circle"]
    assert hybrid["marker"]["symbol"] == ["diamond-open", "diamond"]
    assert cpu["hovertext"][0].startswith("CPU, tiny.en<br>&lt;b>Clip<br>3× real time")
    assert len(page.all("tr")) == 1 + 5
    assert speed_accuracy.NOTHING in speed_accuracy.render([compare()])

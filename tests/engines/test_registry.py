"""The table of engines: a new engine is one file and one row."""

from pathlib import Path

import pytest

from engines import registry
from engines.analysis import records
from engines.base import EngineError, EngineUnavailable
from engines.command_options import pick_engines
from engines.registry import EngineRow

NEW_ENGINE = """
from engines.analysis.layers import open_torch_cpu as open_stages
from engines.whisper_torch import TorchEngine as NewEngine


def why_not():
    return None
"""


def test_a_new_engine_is_one_file_and_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new_engine.py").write_text(NEW_ENGINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    new = EngineRow(
        "new", "New engine", "A new one", "PyTorch", "PyTorch", "#123456",
        make="new_engine:NewEngine", why_not="new_engine:why_not",
        open_encoder="new_engine:open_stages",
    )  # fmt: skip
    monkeypatch.setattr(registry, "ENGINES", (*registry.ENGINES, new))
    engine = registry.get("new", "tiny.en")
    assert (engine.key, engine.label, engine.device) == ("new", "New engine", "cpu")
    assert "new" in registry.available()
    status = registry.statuses()[-1]
    assert (status.key, status.colour, status.dtypes) == ("new", "#123456", ("float32",))
    # `open_encoder` is another path than the CPU engine's, so its encoder is offered as its own.
    assert records.candidates()[-1] == records.Half("new:float32", "New engine, float32")
    registry.release("tiny.en")


def test_all_are_the_optional_engines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.EngineRow, "why_unavailable", lambda self: None)
    usual = [row.key for row in registry.ENGINES if not row.is_optional]
    assert list(pick_engines("all")) == list(registry.all_keys()) != usual
    assert list(pick_engines(None)) == usual


def test_unavailable_engines_and_types_give_their_reason() -> None:
    assert len({row.colour for row in registry.ENGINES}) == len(registry.ENGINES)
    for status in registry.statuses():
        if status.reason:
            with pytest.raises(EngineUnavailable, match=status.reason):
                registry.get(status.key)
            continue
        for dtype in ("float16", "bfloat16"):
            if dtype not in status.dtypes:
                with pytest.raises(EngineUnavailable, match="computes only in"):
                    registry.get(status.key, "tiny.en", dtype)
    with pytest.raises(EngineError, match="no engine 'tpu'"):
        registry.get("tpu")


def test_a_lane_may_have_a_type_and_a_model_of_its_own() -> None:
    assert registry.get("cpu@tiny.en", "base") is registry.get("cpu", "tiny.en")
    assert registry.get("cpu:float32@tiny.en", "base") is registry.get("cpu", "tiny.en")
    lane = registry.read_lane("gpu:float16@/home/me/a@b.pt")
    assert lane == registry.LaneName("gpu", "float16", "/home/me/a@b.pt")
    for name, sentence in (("tpu@base", "no engine 'tpu'"), ("cpu:int8", "cpu has no type 'int8'")):
        with pytest.raises(EngineError, match=sentence):
            registry.get(name)

"""The names of OpenAI's checkpoints, readable without importing whisper, hence PyTorch."""

from __future__ import annotations

OFFICIAL_MODELS = (
    "tiny.en",
    "tiny",
    "base.en",
    "base",
    "small.en",
    "small",
    "medium.en",
    "medium",
    "large-v1",
    "large-v2",
    "large-v3",
    "large",
    "large-v3-turbo",
    "turbo",
)
"""As `whisper.available_models()` (20250625) lists them."""

DEFAULT_MODEL = "base"
"""The multilingual checkpoint that the page and every command start with."""

QUICK_MODEL = "tiny.en"
"""The quick choice for English."""


def names() -> tuple[str, ...]:
    """Return the official names; a path or a Hugging Face repository works as well."""
    return OFFICIAL_MODELS

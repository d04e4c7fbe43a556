"""OpenAI's checkpoints: their names, sizes and languages, and which of them are on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

MODEL_MEGABYTES = {
    "tiny.en": 76, "tiny": 76, "base.en": 145, "base": 145, "small.en": 484, "small": 484,
    "medium.en": 1528, "medium": 1528, "large-v1": 3087, "large-v2": 3087, "large-v3": 3087,
    "large": 3087, "large-v3-turbo": 1618, "turbo": 1618,
}  # fmt: skip
"""Sizes of OpenAI's checkpoints as its server has them, in 10⁶ bytes."""

OFFICIAL_MODELS = tuple(MODEL_MEGABYTES)
"""OpenAI's checkpoints, as `whisper.available_models()` (20250625) lists them."""

DEFAULT_MODEL = "base"
"""The multilingual checkpoint that the page and every command start with."""

QUICK_MODEL = "tiny.en"
"""The quick choice for English."""

_CODES_AND_NAMES = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese, pt
portuguese, tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian, id
indonesian, hi hindi, fi finnish, vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay, cs
czech, ro romanian, da danish, hu hungarian, ta tamil, no norwegian, th thai, ur urdu, hr
croatian, bg bulgarian, lt lithuanian, la latin, mi maori, ml malayalam, cy welsh, sk slovak, te
telugu, fa persian, lv latvian, bn bengali, sr serbian, az azerbaijani, sl slovenian, kn kannada,
et estonian, mk macedonian, br breton, eu basque, is icelandic, hy armenian, ne nepali, mn
mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician, mr marathi, pa punjabi,
si sinhala, km khmer, sn shona, yo yoruba, so somali, af afrikaans, oc occitan, ka georgian, be
belarusian, tg tajik, sd sindhi, gu gujarati, am amharic, yi yiddish, lo lao, uz uzbek, fo
faroese, ht haitian creole, ps pashto, tk turkmen, nn nynorsk, mt maltese, sa sanskrit, lb
luxembourgish, my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese, tt tatar, haw
hawaiian, ln lingala, ha hausa, ba bashkir, jw javanese, su sundanese, yue cantonese
"""

LANGUAGES: dict[str, str] = {
    code: " ".join(name) for code, *name in (pair.split() for pair in _CODES_AND_NAMES.split(","))
}
"""Name by code, in the order of `whisper.tokenizer.LANGUAGES` (20250625): a test compares them."""


def estimate_megabytes(name: str) -> float:
    """Return the size of a checkpoint in 10⁶ bytes, about that of `small` where it isn't known."""
    return MODEL_MEGABYTES.get(name, 500)


def is_hub_repository(name: str) -> bool:
    """Return whether a model's name could be a repository at Hugging Face: `owner/name`."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name))


def cache_home() -> Path:
    """Return the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def has_model(name: str) -> bool:
    """Return whether an official checkpoint's files are on this machine.

    It looks in the places that `engines.checkpoints` names, but opens nothing: digests are checked
    when the checkpoint is loaded.
    """
    caches = cache_home()
    hub = Path(os.environ.get("HF_HOME") or caches / "huggingface") / "hub"
    hub = Path(os.environ.get("HF_HUB_CACHE") or hub)
    file = {"large": "large-v3", "turbo": "large-v3-turbo"}.get(name, name)
    places = (
        caches / "whisper" / f"{file}.pt",
        caches / "max-whisper" / "models" / name / "model.bin",
        hub / f"models--openai--whisper-{name}" / "snapshots",
        hub / f"models--Systran--faster-whisper-{name}" / "snapshots",
    )
    return any(place.exists() for place in places)

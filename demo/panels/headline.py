"""Stands in until the panels move here."""

from demo.headline import Headline, render_headline, summarise

__all__ = ["Headline", "render_headline", "summarise"]

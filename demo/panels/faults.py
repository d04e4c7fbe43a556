"""Stands in until the panels move here."""

from demo.faults import PLACEHOLDER, list_choices, render_story, summarise
from demo.faults import render_finding as render

__all__ = ["PLACEHOLDER", "list_choices", "render", "render_story", "summarise"]

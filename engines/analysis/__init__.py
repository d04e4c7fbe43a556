"""Analyses of encoders: their layers compared, and deliberate faults."""

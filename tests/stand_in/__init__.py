"""Packages that are there on Hugging Face Spaces alone."""

"""What `python -m engines.bench` measures: one module a question, and what they share."""

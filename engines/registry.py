"""Which engines this machine can run, and why not the others.

`python -m engines.registry` prints the list. A new engine is one file and one row here.
"""

"""What `engines.cli` prints: comparisons, checks of this machine, layers and faults."""

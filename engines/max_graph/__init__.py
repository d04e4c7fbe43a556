"""Whisper as MAX graphs: builders, weights, kernels, and the cache of what was compiled."""

"""Compile a GPU's graphs where there is none yet, for a virtual device of its architecture.

On ZeroGPU a GPU is lent for seconds, and compiling takes minutes. The device decides for a whole
process, so this is the handler of a worker.
"""

from __future__ import annotations

import time

from max import driver

from engines import checkpoints, registry
from engines.base import Dtype, Listener


class CompileHandler:
    """Compiles for one architecture, such as `sm_120a`."""

    def __init__(self, architecture: str) -> None:
        driver.set_virtual_device_api("cuda")
        driver.set_virtual_device_target_arch(architecture)
        driver.set_virtual_device_count(1)

    def compile(self, key: str, model: str, dtype: Dtype, listener: Listener) -> float:
        """Keep an engine's compiled graphs in the cache; return the seconds that it took."""
        from engines.max_graph import compile_cache

        start = time.perf_counter()
        checkpoint, device = checkpoints.load(model, listener), driver.Accelerator()
        weight = compile_cache.pick_weight(checkpoint, device, dtype)
        compile_cache.compile_graphs("encoder", checkpoint.dims, device, weight, listener)
        if registry.row(key).decoder.startswith("MAX"):
            compile_cache.compile_graphs("decoder", checkpoint.dims, device, weight, listener)
        return time.perf_counter() - start

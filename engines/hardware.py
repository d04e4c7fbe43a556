"""What engines can use on this machine, caches and memory; imports PyTorch and MAX only at need."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engines.models import cache_home

if TYPE_CHECKING:
    import torch


def why_no_cuda() -> str | None:
    """Return why PyTorch has no CUDA device here, or None when it has one."""
    if has_gpu():
        return None
    from engines import zero_gpu

    return zero_gpu.why_not() or "no CUDA device was found on this machine"


def has_gpu() -> bool:
    """Return whether PyTorch can use a CUDA device.

    Importing PyTorch takes seconds and hundreds of megabytes, which a page without a GPU is spared.
    """
    from engines import zero_gpu

    if "torch" not in sys.modules and not _has_gpu_driver() and not zero_gpu.is_here():
        return False
    import torch

    return torch.cuda.is_available()


@cache
def _has_gpu_driver() -> bool:
    for name in ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so"):  # NVIDIA's, or AMD's
        with suppress(OSError):
            ctypes.CDLL(name)
            return True
    return Path("/opt/rocm").exists()


def why_no_max() -> str | None:
    """Return why MAX can't run here, or None when it can."""
    if find_spec("max") is None or find_spec("max.engine") is None:
        return "the package max is not installed; it is made for Linux and macOS"
    return None


def why_no_avx2() -> str | None:
    """Return why code built for AVX2 can't run here, or None when it can or nothing tells."""
    _, flags = read_processor()
    missing = ", ".join(sorted({"avx2", "fma", "f16c", "bmi2"} - flags))
    if flags and missing:
        return f"it is built for processors with {missing}; this has none"
    return None


def why_no_bfloat16() -> str | None:
    """Return why the processor can't multiply in bfloat16, or None when it can or nothing tells."""
    _, flags = read_processor()
    if flags and not flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        return "this processor has no instructions for bfloat16"
    return None


def read_processor() -> tuple[str, set[str]]:
    """Return the processor's name and instruction sets as Linux has them; nothing elsewhere."""
    name, flags = "", set[str]()
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.partition("\n\n")[0].splitlines():
            field, _, value = line.partition(":")
            match field.strip():
                case "model name":
                    name = value.strip()
                case "flags" | "Features":
                    flags = set(value.split())
    return name, flags


@cache
def request_amx() -> bool:
    """Ask Linux for AMX, Intel's matrix unit, in bfloat16; return whether this process may use it.

    Its registers are large, so the kernel gives them only to a process that asks. It may also say
    no: old kernels, and some virtual machines. `MAX_WHISPER_AMX=0` asks for nothing.
    """
    _, flags = read_processor()
    wanted = os.environ.get("MAX_WHISPER_AMX", "1") != "0"
    if not wanted or not {"amx_tile", "amx_bf16"} <= flags or sys.platform != "linux":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18  # of x86-64, asm/prctl.h
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


@contextmanager
def coarse_timers() -> Iterator[None]:
    """On Linux, let threads that start inside oversleep each wait of theirs by up to 50 ms.

    For a library's thread that polls: a thread inherits its timer slack from the one that starts
    it, by default 50 microseconds.
    """
    if sys.platform != "linux":
        yield
        return
    set_slack, get_slack = 29, 30  # PR_SET_TIMERSLACK and PR_GET_TIMERSLACK of linux/prctl.h
    prctl = ctypes.CDLL(None).prctl
    usual = prctl(get_slack, 0, 0, 0, 0)
    prctl(set_slack, ctypes.c_ulong(50_000_000), 0, 0, 0)
    try:
        yield
    finally:
        prctl(set_slack, ctypes.c_ulong(usual), 0, 0, 0)


def has_accelerator() -> bool:
    """Return whether half-precision engines have a device here: a CUDA GPU, or one that MAX has."""
    if has_gpu():
        return True
    apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    if not apple or why_no_max() is not None:
        return False
    from max.driver import accelerator_count

    return accelerator_count() > 0


def cache_folder() -> Path:
    """Return the folder of compiled graphs and past runs, after trying to create it."""
    configured = os.environ.get("MAX_WHISPER_CACHE")
    folder = Path(configured).expanduser() if configured else cache_home() / "max-whisper"
    with suppress(OSError):  # a disk that is full or read-only: everything is compiled anew
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def release_memory() -> None:
    """Return freed memory to the system, where the C library has a call for it (glibc).

    Loading a checkpoint frees about as much memory as the weights take, and glibc would keep it.
    PyTorch keeps a GPU's in the same way, which the other engines' processes may need.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def synchronize(device: torch.device) -> None:
    """Wait for the device's queued work, so that a clock read next is true."""
    if device.type == "cuda":
        sys.modules["torch"].cuda.synchronize(device)


class PeakMemory:
    """Measures peak memory while it is entered: `peak_bytes`.

    On a GPU that is of PyTorch's tensors, else of all resident pages of the process, the loaded
    model's included. Linux keeps the peak (`VmHWM`) and resets it on request; where that is
    refused, the size is read every 20 ms. Elsewhere, as on macOS, there is only the peak since the
    process began (`ru_maxrss`).
    """

    SAMPLE_SECONDS = 0.02

    def __init__(self, on_gpu: bool = False) -> None:
        self.peak_bytes = 0
        self._on_gpu = on_gpu
        self._over = threading.Event()
        self._sampling: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self._on_gpu:
            sys.modules["torch"].cuda.reset_peak_memory_stats()
        elif read_status("VmRSS") is not None and not reset_peak():
            self._sampling = threading.Thread(target=self._sample, daemon=True)
            self._sampling.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampling is not None:
            self._over.set()
            self._sampling.join()
        elif self._on_gpu:
            self.peak_bytes = sys.modules["torch"].cuda.max_memory_allocated()
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            unit = 1 if sys.platform == "darwin" else 1024
            self.peak_bytes = read_status("VmHWM") or peak * unit

    def _sample(self) -> None:
        ended = False
        while not ended:
            ended = self._over.wait(self.SAMPLE_SECONDS)
            self.peak_bytes = max(self.peak_bytes, read_status("VmRSS") or 0)


def reset_peak() -> bool:
    """Make Linux count this process's peak resident size (`VmHWM`) from now on; return whether it
    does."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    peak, now = read_status("VmHWM"), read_status("VmRSS")
    return peak is not None and now is not None and peak <= now + 2**22


def read_status(field: str) -> int | None:
    """Return a size of this process in bytes, as `VmRSS`; None where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None

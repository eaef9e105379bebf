"""An ONNX graph opened by onnxruntime: on the CPU, where its optimised form can be kept, or on CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.artifact.disk import sha256 as sha256_of
from surgery.artifact.errors import StoreError

_LEVEL_FATAL = 4
_CPU = "CPUExecutionProvider"
_GRAPH, _WEIGHTS, _DIGESTS = "model.onnx", "weights.bin", "sha256.json"
_LEAST_BYTES = 1024
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{12}")
_MAKING = ".making-"
_MAKING_S = 3600.0
_FORMAT = "1"
"""Raised when an option of sessions changes what an optimised graph looks like."""


@dataclass(frozen=True)
class GraphCache:
    """Graphs as onnxruntime optimised them for this processor, kept in a folder.

    Opening one optimises nothing, and its weights are mapped from the file: several processes share them.
    What cannot be read or written here costs that gain and nothing else.

    Args:
        root: The folder; it is made, for this user alone, when the first graph is kept. One that others may
            write is not used: whoever does could answer in the place of the graph.
        most_mib: Bound on its size; the graphs that were opened longest ago go first.
    """

    root: Path
    most_mib: float

    def open(self, path: Path, sha256: str, threads: int) -> Any | None:
        """Open the optimised form of a graph, made first if it is not there.

        Args:
            path: The graph.
            sha256: Of its file.
            threads: Threads of one run; 0 for one per core.

        Returns:
            The onnxruntime session, or None if there is no keeping it.
        """
        folder = self._folder(sha256)
        # onnxruntime raises what it likes on files that are damaged.
        with contextlib.suppress(Exception):
            if not self._is_ours():
                return None
            if not _is_whole(folder):
                self._make(path, folder)
            with contextlib.suppress(OSError):  # a cache that may only be read is one, too
                os.utime(folder)
            return _open_optimised(folder / _GRAPH, threads)
        return None

    def reopen(self, sha256: str, threads: int) -> Any | None:
        """Open the optimised form of a graph once more, if it is still here. It needs the graph no more."""
        with contextlib.suppress(Exception):
            return _open_optimised(self._folder(sha256) / _GRAPH, threads)
        return None

    def holds(self, sha256: str) -> bool:
        """Return whether the optimised form of a graph is here."""
        return os.path.exists(self._folder(sha256) / _DIGESTS)

    def drop(self, sha256: str) -> None:
        """Forget the optimised form of a graph."""
        shutil.rmtree(self._folder(sha256), ignore_errors=True)

    def _is_ours(self) -> bool:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not hasattr(os, "getuid"):
            return True
        facts = self.root.stat()
        return facts.st_uid in (os.getuid(), 0) and not facts.st_mode & 0o022

    def _folder(self, sha256: str) -> Path:
        return self.root / f"{sha256[:32]}-{_machine()}"

    def _make(self, path: Path, folder: Path) -> None:
        import onnxruntime

        with tempfile.TemporaryDirectory(prefix=_MAKING, dir=self.root) as scratch:
            room = Path(scratch) / "graph"
            room.mkdir()
            options = _options(1)
            options.optimized_model_filepath = str(room / _GRAPH)
            prefix = "session.optimized_model_external_initializers"
            options.add_session_config_entry(f"{prefix}_file_name", _WEIGHTS)
            options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_LEAST_BYTES))
            onnxruntime.InferenceSession(str(path), options, providers=[_CPU])
            digests = {file.name: sha256_of(file) for file in sorted(room.iterdir())}
            (room / _DIGESTS).write_text(json.dumps(digests), "utf-8")
            if _bytes(room) > self.most_mib * 2**20:
                raise OSError("larger than the cache")
            self._make_room(_bytes(room))
            if _is_whole(folder):
                return  # another process was faster: what it made is as good
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                room.rename(folder)

    def _make_room(self, wanted: int) -> None:
        ages = {path: path.stat().st_mtime for path in self.root.iterdir() if path.is_dir()}
        for path, age in ages.items():
            if path.name.startswith(_MAKING) and age < time.time() - _MAKING_S:  # of a killed process
                shutil.rmtree(path, ignore_errors=True)
        kept = sorted((path for path in ages if _NAME.fullmatch(path.name)), key=lambda path: ages[path])
        total = wanted + sum(_bytes(path) for path in kept)
        while kept and total > self.most_mib * 2**20:
            oldest = kept.pop(0)
            total -= _bytes(oldest)
            shutil.rmtree(oldest, ignore_errors=True)


def open_on_cpu(path: Path, threads: int, cache: GraphCache | None = None, sha256: str = "") -> Any:
    """Open a graph on the CPU; through its optimised form where there is a cache for it.

    Raises:
        StoreError: If it is no graph that can be run.
    """
    kept = cache.open(path, sha256, threads) if cache is not None else None
    return _open(path, threads, [_CPU]) if kept is None else kept


def open_on_cuda(path: Path, threads: int) -> tuple[Any | None, str]:
    """Return the graph on CUDA, or None and the reason why not.

    onnxruntime prints errors and goes on with the CPU where CUDA is missing; so it is asked
    only after the driver has named a device.

    Raises:
        StoreError: If it is no graph that can be run.
    """
    reason = why_no_cuda()
    if reason:
        return None, reason
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return None, "this onnxruntime is built without CUDA; install onnxruntime-gpu"
    onnxruntime.set_default_logger_severity(_LEVEL_FATAL)
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    # TF32 would round every product to 10 bits, and answers would differ between devices. A search
    # for the fastest kernel would run again for each new image size.
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    graph = _open(path, threads, [("CUDAExecutionProvider", options), _CPU])
    if graph.get_providers()[0] != "CUDAExecutionProvider":
        return None, "onnxruntime cannot open it: its CUDA or cuDNN libraries are missing"
    return graph, ""


def why_no_cuda() -> str:
    """Ask the driver itself for a device; "" if there is one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the NVIDIA driver does not start"
    return "" if count.value else "the NVIDIA driver sees no device"


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options_that_release() -> Any:
    """Return the options of a run that gives the memory of its activations back afterwards."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def first_line(error: Exception) -> str:
    """Return what onnxruntime has to say, without the rest."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _open(path: Path, threads: int, providers: list[Any]) -> Any:
    """Open the graph with the given providers, in silence."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), _options(threads), providers=providers)
    except Exception as error:
        raise StoreError(
            f"{path}: not a graph that can be run ({first_line(error)})",
            "check the version with `surgery models show NAME@VERSION`, or export it again.",
        ) from error


def _open_optimised(path: Path, threads: int) -> Any:
    import onnxruntime

    options = _options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=[_CPU])


def _options(threads: int) -> Any:
    import onnxruntime

    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _LEVEL_FATAL
    # Without VNNI sums of int8 products are cut off, unless a slower way is asked for: other answers there.
    if not any("vnni" in fact for fact in _processor()):
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A plan of the memory is a second block beside the first, and made no run faster.
    options.enable_mem_pattern = False
    # Threads that wait for the next run by spinning take the core from whoever decodes the next image.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@functools.cache
def _share_memory() -> None:
    """Give all graphs of this process one pool of memory, grown by no more than what is asked for."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    config = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": 2**20}
    with contextlib.suppress(Exception):  # somebody else in this process was first: theirs is used
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(config))


@functools.cache
def _machine() -> str:
    """Return what an optimised graph depends on, in few letters: the runtime, and the processor's kind."""
    import onnxruntime

    facts = [_FORMAT, onnxruntime.__version__, platform.system(), platform.machine(), *_processor()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@functools.cache
def _processor() -> tuple[str, ...]:
    """Return what the system says of the processor's kind, and of the instructions that it knows."""
    facts = {platform.processor()}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        facts |= {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return tuple(sorted(facts))


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / _DIGESTS).read_text("utf-8"))
        return all(sha256_of(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())

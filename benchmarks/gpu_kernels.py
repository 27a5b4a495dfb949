"""Registers, shared memory and spills of the fused and persistent kernels, by NVIDIA's compiler; no GPU is needed.

    pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cuda-cccl-cu12
    PYTHONPATH=.:tests python -m cpucuda benchmarks/gpu_kernels.py --nvrtc .../nvidia/cuda_nvrtc/lib/libnvrtc.so.12

The sources are those that updates of the report's networks compile, with CuPy's own options. Writes gpu_kernels.json
and gpu_kernels.md in ``--out``, and fails where a kernel spills.
"""

from __future__ import annotations

import argparse
import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_tables import facts, machine, table
from _gpu_section import write_json
from environments import ROOT

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100"]
TEXT = """# Registers of the fused and persistent kernels

Made by `python -m cpucuda benchmarks/gpu_kernels.py`, with NVRTC {version}. {facts}

Registers of a thread + bytes of static shared memory, of each kernel once where several cases have the same; {spills}.
Networks of 3072-[50, 50]-10 with batch norm, and of the same widths without; batches of bytes that are standardised.
`train` makes many updates in one launch, here on a GPU of 132 multiprocessors; H9 has eight hidden layers.

{table}
"""
REPORT = re.compile(r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads\s+"
                    r"ptxas info\s+: Used (\d+) registers(.*?)\n", re.DOTALL)


def sources() -> dict[str, str]:
    """Return the sources that updates compile, by what they are for."""
    import xpnet
    from xpnet.backend.cuda import launch

    found: dict[str, str] = {}
    device = xpnet.Device("cuda")
    x = device.asarray(np.zeros((100, 3072), np.uint8))
    y = device.asarray(np.arange(100) % 10)
    cases: list[tuple[str, bool, float, Any, Any]] = [
        ("batch norm, SGD", True, 0.0, xpnet.SGD(), None),
        ("dropout, momentum", False, 0.5, xpnet.SGD(0.9, nesterov=True), None),
        ("batch norm, dropout, AdamW, clipped", True, 0.5, xpnet.AdamW(), 1.0),
    ]
    compiled = launch._module
    for dtype in ("float32", "float64"):
        for title, batch_norm, dropout, optimizer, clip_norm in cases:
            made: list[str] = []

            def remember(source: str, made: list[str] = made) -> Any:
                made.append(source)
                return compiled(source)

            launch._module = remember  # type: ignore[assignment]
            try:
                network = xpnet.mlp(3072, [50, 50], 10, batch_norm=batch_norm, dropout=dropout, standardize=True)
                trainer = xpnet.Trainer(network, optimizer=optimizer, l2=0.005, dtype=dtype, clip_norm=clip_norm,
                                        device=device)
                trainer.start(device)
                next(trainer.batches(x, y).run(0, 1))
            finally:
                launch._module = compiled
            for source in made:
                if source not in found.values():
                    found[f"{dtype}, {title}, {len(found)}"] = source
    return found | persistent_sources(x, y)


def persistent_sources(x: Any, y: Any) -> dict[str, str]:
    """Return the sources of kernels for many updates, as they are on a GPU of 132 multiprocessors."""
    import xpnet
    from xpnet.backend.cuda.persistent import Limits
    from xpnet.training.persistent import Persistent

    found = {}
    cases: list[tuple[str, list[int], int, str, Any]] = [
        ("H3+BN, SGD", [50, 50], 0, "float32", xpnet.SGD()), ("H3+BN, SGD", [50, 50], 0, "float64", xpnet.SGD()),
        ("H9+BN, momentum", [50, 30, 20, 20, 10, 10, 10, 10], 0, "float32", xpnet.SGD(0.9)),
        ("H3+BN, 8 models, AdamW", [50, 50], 8, "float32", xpnet.AdamW()),
    ]
    for title, hidden, models, dtype, optimizer in cases:
        network = xpnet.mlp(3072, hidden, 10, batch_norm=True, standardize=True)
        trainer = xpnet.Trainer(network, optimizer=optimizer, l2=0.005, dtype=dtype, device=xpnet.Device.of(x),
                                seed=list(range(models)) if models else 0)
        trainer.start(xpnet.Device.of(x))
        kernel = Persistent(trainer.learner, network, optimizer, trainer.loss, 0.005, None, trainer.seed,
                            trainer.batches(x, y), limits=Limits(132, 225 * 2**10))
        found[f"{dtype}, {title}, {len(found)}"] = kernel.program.text
    return found


def report(library: Any, source: str, architecture: str, packages: Path) -> dict[str, dict[str, int]]:
    """Compile a source and return what the compiler says of each kernel in it."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", "-ftz=true",
               *(f"-I{packages / name / 'include'}" for name in ("cuda_runtime", "cuda_cccl"))]
    encoded = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"fused.cu", 0, None, None)
    failed = library.nvrtcCompileProgram(program, len(options), encoded)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if failed:
        raise SystemExit(f"{architecture} refuses a kernel:\n{text}")
    found = {}
    for name, stores, loads, registers, rest in REPORT.findall(text):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[name] = {"registers": int(registers), "shared": int(shared[1]) if shared else 0,
                       "spills": int(stores) + int(loads)}
    return found


def main() -> None:
    """Compile, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvrtc", type=Path, required=True, help="libnvrtc.so of the wheel nvidia-cuda-nvrtc-cu12")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args()
    collected = sources()  # with the emulation's compiler, which CuPy must find first
    library, major, minor = ctypes.CDLL(str(args.nvrtc)), ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    packages = args.nvrtc.parent.parent.parent
    found: dict[str, Any] = {}
    for title, source in collected.items():
        for architecture in ARCHITECTURES:
            for kernel, numbers in report(library, source, architecture, packages).items():
                found.setdefault(f"{kernel}: {title.rpartition(',')[0]}", {})[architecture] = numbers
    rows, seen = [], set()
    for name, each in sorted(found.items()):
        numbers = [f"{each[a]['registers']} + {each[a]['shared']}" for a in ARCHITECTURES]
        same = (name.partition(",")[0], *numbers)
        rows += [[name, *numbers]] * (same not in seen)
        seen.add(same)
    about, version = machine(None, []), f"{major.value}.{minor.value}"
    spilling = [name for name, each in found.items() if any(numbers["spills"] for numbers in each.values())]
    spills = f"spilling: {', '.join(spilling)}" if spilling else "no kernel spills"
    text = TEXT.format(facts=facts(about), version=version, spills=spills,
                       table=table(["kernel", *ARCHITECTURES], rows))
    write_json(args.out / "gpu_kernels.json", {"facts": about, "nvrtc": version, "kernels": found})
    (args.out / "gpu_kernels.md").write_text(text, encoding="utf-8")
    print(text)
    if spilling:
        raise SystemExit(spills)


if __name__ == "__main__":
    main()

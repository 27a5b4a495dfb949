"""The device, environment variables, refused functions and the command line, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cupy
import numpy as np
import pytest

import cpucuda
from cpucuda import build

from .support import run_python

ADD = "import cupy; x = cupy.arange(4.0); y = (x + 1).get(); "


def check(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m cpucuda --check``."""
    return subprocess.run([sys.executable, "-m", "cpucuda", "--check"], env={**os.environ, **variables},
                          capture_output=True, text=True)


def fake_compiler(folder: Path, version: str) -> str:
    """Return the path of a compiler that only says its version."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return str(path)


def test_the_device_says_what_it_is() -> None:
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    assert properties["name"] == b"CPU emulation"
    assert cupy.cuda.runtime.runtimeGetVersion() <= cupy.cuda.runtime.driverGetVersion()
    assert cupy.cuda.runtime.runtimeGetVersion() // 1000 == build.cuda_major()
    assert cupy.cuda.Device().compute_capability == "90"
    assert cupy.cuda.runtime.deviceGetAttribute(10, 0) == properties["warpSize"] == 32


def test_check_accepts_this_machine() -> None:
    done = check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("version", ["11.4.0", ""])
def test_check_gives_the_reason_in_one_line(version: str, tmp_path: Path) -> None:
    for compiler in (fake_compiler(tmp_path, version), str(tmp_path / "absent")):
        done = check(CPUCUDA_CXX=compiler)
        assert done.returncode == 2
        assert done.stderr.startswith("cpucuda needs g++ 12 or later, and ")
        assert done.stderr.count("\n") == 1


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.problem() is None
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert "needs Linux on x86-64" in (build.problem() or "")
    monkeypatch.undo()
    monkeypatch.setattr(build.sys, "platform", "darwin")
    assert "needs Linux on x86-64" in (build.problem() or "")


def test_a_compiler_that_fails_is_reported_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "compiler"
    path.write_text('#!/bin/sh\ncase "$*" in *-dumpversion*) echo 13;; *--version*) ;; *) exit 1;; esac\n')
    path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "cpucuda", "-c", "1"], capture_output=True, text=True,
        env={**os.environ, "CPUCUDA_CXX": str(path), "CPUCUDA_CACHE": str(tmp_path), "CPUCUDA_MADE": "", "PYTHONPATH":
             str(build.HERE.parent)},
    )
    assert done.returncode == 1
    assert "failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_emulated_unless_asked_for() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CPUCUDA_", "CUDA_"))}
    code = """import cpucuda, sys
try:
    cpucuda.counts()
except RuntimeError as error:
    print(error)
print('cupy' in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], env={**clean, "PYTHONPATH": str(build.HERE.parent)},
                          capture_output=True, text=True)
    message = "this process does not use the emulation; start it with python -m cpucuda"
    assert done.stdout.splitlines() == [message, "False"]


def test_another_sitecustomize_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    done = run_python("import cpucuda; print(cpucuda.counts()['kernels'])",
                  PYTHONPATH=os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)]))
    assert done.stdout.split() == ["mine", "0"]


def test_counts_of_launches_and_products() -> None:
    x = cupy.ones((3, 3))
    (x + 1) @ x  # compile first: nothing else may launch below
    before = cpucuda.counts()
    for _ in range(3):
        x + 1
    x @ x
    cupy.matmul(cupy.broadcast_to(x, (4, 3, 3)), x)
    after = cpucuda.counts()
    assert after["kernels"] - before["kernels"] >= 3
    assert after["cublas"] - before["cublas"] == 2
    x + 1
    assert cpucuda.counts() == {**after, "kernels": after["kernels"] + 1}


def test_kernels_and_products_can_be_skipped() -> None:
    code = ("import cupy, cpucuda; x = cupy.asarray([[3.0, 0], [0, 3]]); y = x * 7; x += 1;"
            "c = cpucuda.counts(); x @ x; d = cpucuda.counts(); print(x.get()[0, 0], c['kernels'] >= 2, d['cublas'])")
    assert run_python(code, CPUCUDA_SKIP_KERNELS="1").stdout.strip() == "3.0 True 1"
    assert run_python(code, CPUCUDA_SKIP_KERNELS="").stdout.strip() == "4.0 True 1"


def test_several_devices_and_copies_between_them() -> None:
    code = """import cupy, numpy as np
print(cupy.cuda.runtime.getDeviceCount())
x = np.random.default_rng(0).normal(size=(3, 4))
a = cupy.asarray(x)
with cupy.cuda.Device(1):
    b = cupy.asarray(a)
    c = b.T.copy() @ b
    print(b.device.id, (b.get() == x).all(), c.device.id, np.allclose(c.get(), x.T @ x))
b.data.copy_from_device(a.data, a.nbytes)
try:
    a + b
except ValueError as error:
    print('different' in str(error))
print(cupy.cuda.runtime.deviceCanAccessPeer(0, 1))"""
    done = run_python(code, CPUCUDA_DEVICES="2")
    assert done.stdout.split() == "2 1 True 1 True True 0".split(), done.stderr
    assert run_python(code, CPUCUDA_DEVICES="2", CUDA_VISIBLE_DEVICES="0").stdout.split()[0] == "1"
    assert "NoDevice" in run_python(ADD, CPUCUDA_DEVICES="0").stderr


def test_memory_ends() -> None:
    code = """import cupy
free, total = cupy.cuda.runtime.memGetInfo()
cupy.cuda.set_allocator(None)
x = cupy.empty(600, 'u1')
print(total, cupy.cuda.runtime.memGetInfo()[0] - free)
try:
    cupy.empty(500, 'u1')
except cupy.cuda.runtime.CUDARuntimeError as error:
    print('cudaErrorMemoryAllocation' in str(error))
del x
cupy.empty(1000, 'u1')"""
    done = run_python(code, CPUCUDA_MEMORY="1000")
    assert done.stdout.split() == ["1000", "-600", "True"], done.stderr


def test_a_forked_process_has_no_device() -> None:
    code = ADD + """
import os, sys
if os.fork() == 0:
    try:
        (x + 1).get()
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        print('nitialization' in str(error), flush=True)
    os._exit(0)
os.wait()
print((x + 1).get()[0])"""
    assert run_python(code).stdout.split() == ["True", "1.0"]


def test_launches_can_be_printed() -> None:
    assert "<<<(1, 1, 1), (4, 1, 1)>>> took" in run_python(ADD, CPUCUDA_VERBOSE="1").stderr.replace("(128,", "(4,")


def test_nvidias_compiler_is_asked_first() -> None:
    """CPUCUDA_NVRTC is never ignored: a library that cannot be loaded is an error."""
    code = "import cupy; k = cupy.RawKernel('extern \"C\" __global__ void never_seen() {}', 'never_seen'); k.compile()"
    done = run_python(code, CPUCUDA_NVRTC="/absent.so", CUPY_CACHE_IN_MEMORY="1")
    assert "/absent.so cannot be loaded" in done.stderr
    assert run_python(code).stderr == ""  # now CuPy has it in its cache
    assert "/absent.so cannot be loaded" in run_python(code, CPUCUDA_NVRTC="/absent.so").stderr


def test_only_nvidias_compiler_refuses_an_array_of_variable_length() -> None:
    module = cupy.RawModule(code='extern "C" __global__ void k(int* y, int n) { int a[n]; y[0] = a[0]; }')
    if os.environ.get("CPUCUDA_NVRTC"):
        with pytest.raises(cupy.cuda.compiler.CompileException, match="constant"):
            module.compile()
    else:
        module.compile()


@pytest.mark.parametrize("library", ["fft", "random", "solver", "sparse"])
def test_absent_libraries_name_themselves(library: str) -> None:
    call = {
        "fft": lambda: cupy.fft.fft(cupy.ones(4)), "random": lambda: cupy.random.rand(3),
        "solver": lambda: cupy.linalg.cholesky(cupy.eye(3)),
        "sparse": lambda: __import__("cupyx.scipy.sparse").scipy.sparse.csr_matrix(cupy.eye(3)) @ cupy.ones(3),
    }[library]
    names = {"fft": "cufft", "random": "curand", "solver": "cusolver|nvJitLink", "sparse": "cusparse|nvJitLink"}
    with pytest.raises((ImportError, NotImplementedError), match=f"(?i){names[library]}"):
        call()


def test_functions_of_the_runtime_that_are_absent_name_themselves() -> None:
    runtime = cupy.cuda.runtime
    for call, name in [
        (lambda: runtime.createTextureObject(0, 0), "createTextureObject"),
        (lambda: runtime.mallocAsync(8, 0), "mallocAsync"), (lambda: runtime.deviceGetLimit(0), "deviceGetLimit"),
    ]:
        with pytest.raises(NotImplementedError, match=f"cpucuda does not emulate .*{name}"):
            call()


def test_kernels_compiled_for_gpus_are_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"cpucuda does not emulate cupy.cuda.cub.device_reduce"):
        cupy.cuda.cub.device_reduce(cupy.ones(4), 0, None, None)
    with pytest.raises(NotImplementedError, match=r"cpucuda does not emulate cupy.random._generator_api"):
        cupy.random.default_rng(1)
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="NO_BINARY"):
        cupy.cuda.function.Module().load(b"a cubin for a GPU, longer than a header")


def test_a_partition_of_a_long_array_is_refused(capfd: Any) -> None:
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="NOT_SUPPORTED"):
        cupy.partition(cupy.asarray(np.arange(100_000)[::-1]), 10)
    assert "lockstep" in capfd.readouterr().err

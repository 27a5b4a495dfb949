"""Devices and namespaces: what can be asked for, what is told when it does not work, and the way to the host."""

from __future__ import annotations

import copy
import mmap
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, draw

from xpnet import backend
from xpnet.backend import (
    Device,
    DeviceError,
    MixedDevicesError,
    OutOfMemoryError,
    check_same_device,
    constant,
    format_bytes,
    from_dlpack,
    is_complex,
    namespace,
    ops_of,
    real,
    survey,
    to_numpy,
)

# Arrays -------------------------------------------------------------------------------------------------------


def test_only_a_gpu_queues_its_work(device: Device) -> None:
    """What fits side by side, and whether workers share a device, follows from it."""
    assert device.is_host == (not device.name.startswith("cuda"))
    assert device.is_host != (device.xp.__name__.endswith("cupy"))



@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "complex128"])
def test_arrays_come_and_go_bit_for_bit(device: Device, dtype: str) -> None:
    values = np.asarray([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    here = device.asarray(values)
    assert namespace(here) is device.xp
    assert Device.of(here) == device
    assert_same(to_numpy(here), values)
    assert_same(device.asarray(values.tolist(), dtype), here)
    assert_same(Device().asarray(here), values)
    assert_same(device.asarray(here), here)


def test_asarray_converts_and_copies_where_asked(device: Device) -> None:
    a = device.asarray([1.0, 2.0], "float32")
    assert to_numpy(device.asarray(a, "float64")).dtype == np.float64
    copy = device.asarray(a, copy=True)
    copy += 1.0
    assert to_numpy(a).tolist() == [1.0, 2.0]


def test_empty_is_zeros(device: Device) -> None:
    a = device.empty((2, 3), "float32")
    assert Device.of(a) == device
    assert to_numpy(a).tolist() == [[0.0] * 3] * 2
    assert to_numpy(a).dtype == np.float32


@pytest.mark.parametrize("value", [1, 2.5, [1.0, 2.0], (1, 2), np.float32(3), [np.ones(2), np.zeros(2)]], ids=repr)
def test_plain_numbers_and_sequences_become_numpy_arrays(value: Any) -> None:
    assert to_numpy(value).tolist() == np.asarray(value).tolist()


def test_to_numpy_of_a_numpy_array_is_no_copy() -> None:
    a = np.ones(3)
    assert to_numpy(a) is a


def test_matmul_writes_where_it_is_told(device: Device) -> None:
    a, b = draw(device, "a", (2, 3, 4)), draw(device, "b", (2, 4, 5))
    expected = np.einsum("mij,mjk->mik", to_numpy(a), to_numpy(b))
    matmul = ops_of(a).matmul
    assert_close(matmul(a, b), expected, 1e-14)
    out = device.empty((2, 3, 5), "float64")
    assert matmul(a, b, out) is out
    assert_close(out, expected, 1e-14)
    flat = device.empty((2, 20), "float64")  # a view with gaps, as parameters are for many models
    view = device.xp.reshape(flat[:, 2:17], (2, 3, 5), copy=False)
    matmul(a, b, view)
    assert_close(to_numpy(flat)[:, 2:17].reshape(2, 3, 5), expected, 1e-14)
    assert not to_numpy(flat)[:, :2].any()
    assert not to_numpy(flat)[:, 17:].any()


def test_constants_are_kept_and_told_apart(device: Device) -> None:
    x = device.asarray([[1.0, 2.0]], "float32")
    row = constant(x, (1, 3), 0.5)
    assert to_numpy(row).tolist() == [[0.5] * 3]
    assert to_numpy(row).dtype == np.float32
    assert Device.of(row) == device
    assert constant(x, (1, 3), 0.5) is row
    assert to_numpy(constant(x, (1, 3), 1.0)).tolist() == [[1.0] * 3]
    assert to_numpy(constant(x, (3, 1), 0.5)).shape == (3, 1)
    assert to_numpy(constant(device.asarray([1.0], "float64"), (1, 3), 0.5)).dtype == np.float64
    for n in range(1, 400):  # there are not many
        constant(x, (1, n), 0.5)
    assert len(backend.arrays._CONSTANTS) <= 256
    assert to_numpy(constant(x, (1, 3), 0.5)).tolist() == [[0.5] * 3]


def test_real_and_complex(device: Device) -> None:
    a = device.asarray([1.0, -2.0], "float64")
    assert not is_complex(a)
    assert real(a) is a
    c = device.xp.astype(a, device.xp.complex128) * complex(1.0, 2.0)
    assert is_complex(c)
    assert to_numpy(real(c)).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("value", [[1.0], "text", None, 3.0, object()], ids=["list", "text", "none", "float", "object"])
def test_what_is_no_array_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"expected an array, got .*numpy\.asarray"):
        from_dlpack(value)
    with pytest.raises(TypeError):
        namespace(value)


def test_arrays_of_known_libraries_stay_as_they_are(device: Device) -> None:
    a = draw(device, "a", (3,))
    assert from_dlpack(a) is a


def test_other_arrays_are_viewed_without_a_copy() -> None:
    class Foreign:
        """An array of a library that only knows DLPack."""

        def __init__(self, data: np.ndarray) -> None:
            self.data = data

        def __dlpack__(self, **options: Any) -> Any:
            return self.data.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.data.__dlpack_device__()

    data = np.arange(4.0)
    view = from_dlpack(Foreign(data))
    assert isinstance(view, np.ndarray)
    assert np.shares_memory(view, data)


# Devices by name ----------------------------------------------------------------------------------------------


def test_the_cpu_is_numpy() -> None:
    cpu = Device()
    assert cpu == Device("cpu") == Device.of(np.ones(1)) == Device.backend("numpy")
    assert (cpu.name, cpu.why, cpu.is_host, repr(cpu)) == ("cpu", "", True, "Device('cpu')")
    assert hash(cpu) == hash(Device("cpu"))
    assert cpu != "cpu"
    cpu.synchronize()
    with cpu.activate():
        pass


def test_devices_tell_their_free_memory() -> None:
    free = Device().free_memory()
    assert free is None or 0 < free < 2**50


@pytest.mark.parametrize("name", ["gpu", "", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "auto:1", "CPU", 3])
def test_unknown_names_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"expected the device 'cpu', 'cuda', 'cuda:N' or 'auto', got"):
        Device(name)


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the backend numpy, cupy, torch or strict, got 'jax'"):
        Device.backend("jax")


@pytest.mark.parametrize(("name", "package"), [("torch", "torch"), ("strict", "array-api-strict")])
def test_an_absent_backend_names_its_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "array_api_compat.torch", "array_api_strict"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match=f"the backend {name} needs {package} .*pip install {package}"):
        Device.backend(name)


# CuPy in all the ways in which it may not work ----------------------------------------------------------------


def fake_cupy(
    monkeypatch: pytest.MonkeyPatch, *, count: Callable[[], int] = lambda: 1, built: int = 12090, driver: int = 12080,
    zeros: Callable[[int], Any] = np.zeros, limit: int = 0,
) -> None:
    """Put a stand-in for CuPy where it is imported from."""

    class Current:
        def __init__(self, index: int) -> None:
            self.id = index

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            pass

    runtime = types.SimpleNamespace(
        getDeviceCount=count, runtimeGetVersion=lambda: built, driverGetVersion=lambda: driver,
        memGetInfo=lambda: (3 * 2**30, 8 * 2**30), getDeviceProperties=lambda index: {"name": b"Stand-in"},
    )
    module = types.ModuleType("cupy")
    vars(module).update(
        cuda=types.SimpleNamespace(runtime=runtime, Device=Current), zeros=zeros,
        get_default_memory_pool=lambda: types.SimpleNamespace(
            free_bytes=lambda: 2**30, total_bytes=lambda: 2**31, get_limit=lambda: limit),
    )
    # The real array_api_compat.cupy has all of CuPy's names but its version.
    plain = types.ModuleType("cupy")
    vars(plain).update(__version__="14.0.0")
    monkeypatch.setitem(sys.modules, "cupy", plain)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", module)


def no_driver() -> int:
    raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")


def no_memory(n: int) -> Any:
    raise MemoryError("Out of memory allocating 512 bytes")


def install_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)


def install_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch)
    real_import = backend.devices.importlib.import_module

    def broken(name: str) -> Any:
        if "cupy" in name:
            raise ImportError("libcudart.so.12: cannot open shared object file\nand more")
        return real_import(name)

    monkeypatch.setattr(backend.devices.importlib, "import_module", broken)


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "not installed": (install_nothing, r"not installed: pip install 'xpnet\[cuda12\]'.*cuda13.*--device cpu"),
    "broken": (install_broken, r"does not import \(libcudart.*file\): reinstall .*--device cpu"),
    "no driver": (lambda m: fake_cupy(m, count=no_driver), r"no working GPU \(cudaErr.*nvidia-smi.*--device cpu"),
    "no GPU": (lambda m: fake_cupy(m, count=lambda: 0), "finds no GPU: check CUDA_VISIBLE_DEVICES.*--device cpu"),
    "CUDA too new": (
        lambda m: fake_cupy(m, built=13000),
        r"built for CUDA 13, the driver supports CUDA 12: pip uninstall cupy-cuda13x, .*'xpnet\[cuda12\]'",
    ),
    "no memory": (lambda m: fake_cupy(m, zeros=no_memory), r"cuda:0 does not compute \(Out of memory.*see nvidia-smi"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_gpu_that_does_not_work_is_explained(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install, words = FAILURES[failure]
    install(monkeypatch)
    for make in (lambda: Device("cuda"), lambda: Device("cuda:0"), lambda: Device.backend("cupy")):
        with pytest.raises(DeviceError, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
    auto = Device("auto")
    assert auto.name == "cpu"
    assert auto.why == str(caught.value)
    rows = survey()
    assert [row["device"] for row in rows] in (["cpu", "cuda"], ["cpu", "cuda:0"])
    assert rows[0]["works"]
    assert not rows[1]["works"]
    assert rows[1]["detail"] == auto.why


def test_a_gpu_that_works_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, count=lambda: 2)
    assert (Device("cuda").name, Device("cuda:1").name, Device("auto").name) == ("cuda:0", "cuda:1", "cuda:0")
    assert not Device("cuda").is_host
    assert Device("auto").why == ""
    assert Device("cuda").free_memory() == 4 * 2**30
    fake_cupy(monkeypatch, limit=5 * 2**29)  # of CuPy's pool
    assert Device("cuda").free_memory() == 3 * 2**29
    fake_cupy(monkeypatch, limit=2**30)
    assert Device("cuda").free_memory() == 2**30
    fake_cupy(monkeypatch, count=lambda: 2)
    with pytest.raises(DeviceError, match=r"there is no cuda:2: 2 GPU\(s\) found, cuda:0 to cuda:1"):
        Device("cuda:2")
    rows = survey()
    assert [(row["device"], row["works"]) for row in rows] == [("cpu", True), ("cuda:0", True), ("cuda:1", True)]
    assert "Stand-in" in rows[1]["detail"]
    assert "4.0 GiB free" in rows[1]["detail"]


def test_devices_are_sent_by_their_name(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for sent in (pickle.loads(pickle.dumps(device)), copy.deepcopy(device)):  # noqa: S301
        assert sent == device
        assert sent.xp is device.xp
        assert Device.of(sent.empty((1,), "float32")) == device
    install_nothing(monkeypatch)
    auto = Device("auto")
    assert pickle.loads(pickle.dumps(auto)).why == auto.why  # noqa: S301
    fake_cupy(monkeypatch, count=lambda: 2)
    sent = pickle.dumps(Device("cuda:1"))
    assert pickle.loads(sent).name == "cuda:1"  # noqa: S301
    fake_cupy(monkeypatch)
    with pytest.raises(DeviceError, match=r"there is no cuda:1"):  # where the GPU is not, it says so
        pickle.loads(sent)  # noqa: S301


def test_an_older_cuda_runtime_works_on_a_newer_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, built=12000, driver=13010)
    assert Device("cuda").name == "cuda:0"


# Devices that meet --------------------------------------------------------------------------------------------


def test_arrays_of_one_device_share_it(device: Device) -> None:
    assert check_same_device(a=draw(device, "a", (1,)), b=draw(device, "b", (2,))) == device
    with pytest.raises(ValueError, match="at least one array"):
        check_same_device()


@pytest.mark.backends("strict", "torch", "cupy")
def test_arrays_of_two_devices_are_an_error_with_the_fix(device: Device) -> None:
    here, there = draw(device, "a", (1,)), np.ones(1)
    words = r"x is on .*y on cpu; .*xpnet\.Device\.of\(x\)\.asarray\(y\)"
    with pytest.raises(MixedDevicesError, match=words) as caught:
        check_same_device(x=here, y=there)
    assert device.name in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert check_same_device(x=here, y=Device.of(here).asarray(there)) == device  # the fix works


@pytest.mark.backends("strict")
def test_two_devices_of_one_library_are_two(device: Device) -> None:
    other = Device.of(device.xp.zeros(1, device=device.xp.Device("CPU_DEVICE")))
    assert other != device
    with pytest.raises(ValueError, match=r"device1.*CPU_DEVICE"):
        check_same_device(x=draw(device, "a", (1,)), y=draw(other, "a", (1,)))
    assert_same(to_numpy(draw(other, "a", (3,))), to_numpy(draw(device, "a", (3,))))


def test_a_lack_of_memory_says_what_to_lower(device: Device) -> None:
    free = r"([\d.]+ [kMGT]B are free|how much is free is unknown)"
    words = rf"out of memory on .*: asked for 7 EB; {free}\. Lower the batch"
    with pytest.raises(OutOfMemoryError, match=words) as caught:
        with device.activate(), device.activate():  # explained once
            raise MemoryError("asked for 7 EB.")
    assert isinstance(caught.value, MemoryError)
    assert str(caught.value).count("out of memory") == 1
    with pytest.raises(KeyError), device.activate():
        raise KeyError("others pass")


@pytest.mark.parametrize(("n", "text"), [
    (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (1234, "1.234 kB"), (999_949, "999.9 kB"),
    (999_951, "1 MB"), (109_557_800_352, "109.6 GB"), (2**40, "1.1 TB"), (2**63, "9.223 EB"), (10**22, "1e+04 EB"),
])
def test_bytes_have_a_unit(n: int, text: str) -> None:
    assert format_bytes(n) == text


@pytest.mark.backends("cupy")
def test_cupys_lack_of_memory_says_what_was_asked_and_what_is_free(device: Device) -> None:
    free = device.free_memory()
    assert free is not None
    asked = 2 * free // 512 * 512
    words = rf"out of memory on cuda:0: Out of memory allocating {asked:,} bytes .*\); [\d.]+ [kMGT]B are free\. Lower"
    with pytest.raises(OutOfMemoryError, match=words):
        device.empty((asked,), "uint8")


# Imports ------------------------------------------------------------------------------------------------------


def test_asking_for_a_gpu_where_there_is_none_is_one_line() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "import xpnet\n"
        "try: xpnet.Device('cuda')\n"
        "except xpnet.DeviceError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "pip install 'xpnet[cuda12]'" in done.stdout


# Files larger than memory -------------------------------------------------------------------------------------------


class Told(mmap.mmap):
    """A mapped file that notes what it is told."""

    calls: list[tuple[int, ...]]

    def madvise(self, *told: Any) -> None:
        """Note the advice, and see that the system takes it."""
        self.calls.append(told)
        super().madvise(*told)


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="this system takes no advice")
def test_rows_of_a_mapped_file_are_read_ahead(tmp_path: Path) -> None:
    page = mmap.PAGESIZE
    np.arange(4 * page, dtype=np.uint8).tofile(tmp_path / "x")
    with (tmp_path / "x").open("rb") as opened:
        file = Told(opened.fileno(), 0, access=mmap.ACCESS_READ)
    file.calls = []
    x = np.ndarray((4, page - 100), np.uint8, buffer=file, offset=300)
    for whole in (x, x[:]):
        told = ops_of(whole).read_ahead(whole, x.nbytes)
        assert told is not None
        told(np.asarray([2, 0]))
        rows = [(300 + i * (page - 100), 300 + (i + 1) * (page - 100)) for i in (2, 0)]
        assert file.calls[-2:] == [(mmap.MADV_WILLNEED, start // page * page, end - start // page * page)
                                   for start, end in rows]
    part = ops_of(x[1:]).read_ahead(x[1:], None)
    assert part is not None
    part(np.asarray([0]))
    assert file.calls[-1][1] == (300 + page - 100) // page * page


def test_what_memory_keeps_is_not_read_ahead(tmp_path: Path) -> None:
    x = np.memmap(tmp_path / "x", "uint8", "w+", shape=(60, 6))
    assert ops_of(x).read_ahead(x, 8 * x.nbytes + 1) is None
    assert ops_of(x).read_ahead(x, 8 * x.nbytes) is not None
    assert ops_of(np.asarray(x).T).read_ahead(np.asarray(x).T, 10) is None
    assert ops_of(x.copy()).read_ahead(x.copy(), 10) is None


def test_other_arrays_are_not_read_ahead(device: Device) -> None:
    x = device.asarray([[1.0, 2.0]])
    assert ops_of(x).read_ahead(x, 1) is None

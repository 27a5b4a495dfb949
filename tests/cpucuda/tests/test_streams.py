"""Streams, events, graphs, and memory of the host and the device."""

from __future__ import annotations

import cupy
import numpy as np
import pytest

from .support import VALUES, N, kernel


def test_streams_events_and_pinned_memory() -> None:
    host = np.frombuffer(cupy.cuda.alloc_pinned_memory(4 * N), np.float32, N)
    host[...] = VALUES
    first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream()
    start, end, called = cupy.cuda.Event(), cupy.cuda.Event(), []
    with first:
        start.record()
        x = cupy.empty(N, np.float32)
        x.set(host, stream=first)
        first.launch_host_func(called.append, 3)
        end.record()
    second.wait_event(end)
    with second:
        y = x * 2
        y.get(stream=second, out=host)
    second.synchronize()
    end.synchronize()
    np.testing.assert_array_equal(host, VALUES * 2)
    assert cupy.cuda.get_elapsed_time(start, end) >= 0
    assert first.done
    assert end.done
    assert called == [3]


def test_graphs() -> None:
    add = kernel("y[t] += x[t] * n;")
    stream, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    event = cupy.cuda.Event()
    x, y, z = cupy.arange(64, dtype=np.float32), cupy.zeros(64, np.float32), cupy.zeros(64, np.float32)
    with stream:
        stream.begin_capture()
        add((1,), (64,), (y, x, np.int32(2)))
        y += 1
        event.record(stream)
    other.wait_event(event)
    with other:
        cupy.multiply(y, 2, out=z)
        event.record(other)
    stream.wait_event(event)
    with stream:
        with pytest.raises(NotImplementedError, match="cuBLAS"):
            cupy.matmul(x.reshape(8, 8), y.reshape(8, 8))
        graph = stream.end_capture()
    assert not y.get().any()
    x[...] = 1
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(y.get(), 9)
    np.testing.assert_array_equal(z.get(), 18)


def test_graphs_that_cannot_be() -> None:
    error = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
    stream, other, event = cupy.cuda.Stream(), cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event()
    y = cupy.zeros(4, np.float32)
    for what, message in [
        (stream.synchronize, "Unsupported"), (lambda: y.__iadd__(1), "IMPLICIT"),
        (other.end_capture, "IllegalState"),
    ]:
        stream.begin_capture()
        with pytest.raises(error, match=message):
            what()
        if message != "IllegalState":
            with pytest.raises(error, match="StreamCaptureInvalidated"):
                stream.end_capture()
    with stream:
        event.record(stream)
        other.wait_event(event)
        with other:
            y += 1
        with pytest.raises(error, match="StreamCaptureUnjoined"):
            stream.end_capture()
    assert not stream.is_capturing()
    assert not other.is_capturing()
    assert not y.get().any()


def test_a_graph_calls_python_as_often_as_it_is_launched() -> None:
    stream, called = cupy.cuda.Stream(non_blocking=True), []
    stream.begin_capture()
    stream.launch_host_func(called.append, ("an argument", 5))
    graph = stream.end_capture()
    assert called == []
    for _ in range(3):
        graph.launch(stream)
    assert called == [("an argument", 5)] * 3


def test_properties_and_callbacks_of_streams() -> None:
    stream, called = cupy.cuda.Stream(non_blocking=True), []
    stream.add_callback(lambda *arguments: called.append(arguments[2]), "done")
    assert called == ["done"]
    if hasattr(cupy.cuda.runtime, "streamGetFlags"):  # not in CuPy 13
        assert cupy.cuda.runtime.streamGetFlags(stream.ptr) == 1
        priority = cupy.cuda.runtime.streamCreateWithPriority(1, -3)
        assert cupy.cuda.runtime.streamGetPriority(priority) == -3
        cupy.cuda.runtime.streamDestroy(priority)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InvalidValue"):
        cupy.cuda.get_elapsed_time(cupy.cuda.Event(), cupy.cuda.Event())  # never recorded


def test_memory_by_kind() -> None:
    runtime, host = cupy.cuda.runtime, np.arange(10, dtype="u1")
    with cupy.cuda.using_allocator(cupy.cuda.malloc_managed):
        managed = cupy.arange(10, dtype="u1")
    device, pinned = cupy.zeros(10, "u1"), cupy.cuda.alloc_pinned_memory(10)
    pointers = host.ctypes.data, pinned.ptr, device.data.ptr, managed.data.ptr
    kinds = [runtime.pointerGetAttributes(pointer).type for pointer in pointers]
    assert kinds == [0, 1, 2, 3]
    runtime.memcpy(device.data.ptr, host.ctypes.data, 10, 1)
    runtime.memset(device.data.ptr + 2, 7, 3)
    runtime.memcpyAsync(pinned.ptr, device.data.ptr, 10, 2, 0)
    np.testing.assert_array_equal(np.frombuffer(pinned, "u1", 10), [0, 1, 7, 7, 7, 5, 6, 7, 8, 9])
    np.testing.assert_array_equal(managed.get(), host)


def test_copies_and_frees_that_are_wrong() -> None:
    runtime = cupy.cuda.runtime
    with cupy.cuda.using_allocator(None):
        x, y = cupy.zeros(16, "u1"), cupy.zeros(8, "u1")
    for call in (lambda: runtime.memcpy(y.data.ptr, x.data.ptr, 9, 3), lambda: runtime.memset(y.data.ptr, 0, 9),
                 lambda: runtime.memcpy(0, x.data.ptr, 1, 3), lambda: runtime.free(x.data.ptr + 1)):
        with pytest.raises(runtime.CUDARuntimeError, match="InvalidValue"):
            call()
    with pytest.raises(runtime.CUDARuntimeError, match="InvalidDevice"):
        cupy.cuda.Device(99).use()

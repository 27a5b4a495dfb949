"""Functions that kernels call, against NumPy: conversions, bits, mathematics, half precision, atomics."""

from __future__ import annotations

import math

import cupy
import numpy as np
import pytest

from .support import generator, kernel

N = 64
TYPES = {"f4": "float", "f8": "double", "i4": "int", "u4": "unsigned", "i8": "long long", "u8": "unsigned long long"}


def compute(expressions: list[str], out: str, *inputs: np.ndarray, before: str = "") -> np.ndarray:
    """Evaluate expressions of ``a``, ``b``, ... in one kernel, with one result per row."""
    parameters = "".join(f", const {TYPES[x.dtype.str[1:]]}* {chr(112 + n)}" for n, x in enumerate(inputs))
    body = "".join(f"auto {chr(97 + n)} = {chr(112 + n)}[t]; " for n in range(len(inputs)))
    body += "".join(f"y[{N * row} + t] = {expression}; " for row, expression in enumerate(expressions))
    y = cupy.zeros((len(expressions), N), out)
    kernel(body, f"{TYPES[out]}* y{parameters}", before)((1,), (N,), (y, *(cupy.asarray(x) for x in inputs)))
    return y.get()


def test_roundings_saturate() -> None:
    x = generator("roundings").uniform(-100, 100, N)
    x[:8] = 0.5, 1.5, -2.5, np.nan, 1e30, -1e30, np.inf, 4e9
    rounding = {"rn": np.rint, "rz": np.trunc, "ru": np.ceil, "rd": np.floor}
    for name, dtype in (("int", "i4"), ("uint", "u4"), ("ll", "i8"), ("ull", "u8")):
        limits = np.iinfo(dtype)
        for source, values in (("double", x), ("float", x.astype("f4"))):
            found = compute([f"__{source}2{name}_{mode}(a)" for mode in rounding], dtype, values)
            for row, function in zip(found, rounding.values(), strict=True):
                exact = [0 if math.isnan(v) else limits.max if v == math.inf else
                         min(max(int(v), limits.min), limits.max) for v in function(values).tolist()]
                assert row.tolist() == exact, (name, source)


def test_bits() -> None:
    random = generator("bits")
    x, z = random.integers(-2**31, 2**31, N).astype("i4"), random.integers(-2**63, 2**63 - 1, N)
    x[:2], z[:2] = (0, 1), (0, 1)
    u, w = x.astype("u4"), z.astype("u8")
    found = compute(["__popc(a)", "__popcll(b)", "__clz(a)", "__clzll(b)", "__ffs(a)", "__ffsll(b)"], "i4", x, z)
    for row, (values, bits, function) in zip(found, [
        (u, 32, int.bit_count), (w, 64, int.bit_count), (u, 32, lambda v: 32 - v.bit_length()),
        (w, 64, lambda v: 64 - v.bit_length()), (u, 32, lambda v: (v & -v).bit_length()),
        (w, 64, lambda v: (v & -v).bit_length()),
    ], strict=True):
        assert row.tolist() == [function(v) for v in values.tolist()], bits
    found = compute(["__umulhi(a, 77777u)", "__umul64hi(b, 7777777777777ull)"], "u8", u, w)
    assert found[0].tolist() == [v * 77777 >> 32 for v in u.tolist()]
    assert found[1].tolist() == [v * 7777777777777 >> 64 for v in w.tolist()]
    f, d = random.normal(size=N).astype("f4"), random.normal(size=N)
    found = compute(["__float_as_int(a)", "__double_as_longlong(b)",
                     "__float_as_uint(__int_as_float(__float_as_int(a)))",
                     "__double_as_longlong(__hiloint2double(__double2hiint(b), __double2loint(b)))"], "i8", f, d)
    for row, expected in zip(found, (f.view("i4"), d.view("i8"), f.view("u4"), d.view("i8")), strict=True):
        np.testing.assert_array_equal(row, expected)


def test_mathematics() -> None:
    random = generator("mathematics")
    x, y = random.uniform(0.1, 3, N), random.uniform(-3, 3, N)
    cases = {
        "sinpi(b)": np.sin(np.pi * y), "cospi(b)": np.cos(np.pi * y), "rsqrt(a)": x**-0.5, "rcbrt(a)": x ** (-1 / 3),
        "normcdf(b)": [0.5 * math.erfc(-v / math.sqrt(2)) for v in y], "cyl_bessel_i0(b)": np.i0(y),
        "__dadd_rn(a, b)": x + y, "__dsub_rn(a, b)": x - y, "__dmul_rn(a, b)": x * y, "__ddiv_rn(a, b)": x / y,
        "__dsqrt_rn(a)": np.sqrt(x), "__drcp_rn(a)": 1 / x, "max(a, b)": np.maximum(x, y),
        "min(a, b)": np.minimum(x, y),
        "fma(a, b, a)": x * y + x, "erf(a)": [math.erf(v) for v in x], "lgamma(a)": [math.lgamma(v) for v in x],
        "pow(a, b)": x**y, "fmod(b, a)": np.fmod(y, x), "sinpi(3.0)": np.zeros(N), "cospi(0.5)": np.zeros(N),
    }
    for row, (name, expected) in zip(compute(list(cases), "f8", x, y), cases.items(), strict=True):
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12, err_msg=name)
    f, g = x.astype("f4"), y.astype("f4")
    fast = {
        "__expf(b)": np.exp(g), "__logf(a)": np.log(f), "__sinf(b)": np.sin(g), "__cosf(b)": np.cos(g), "__fsqrt_rn(a)":
        np.sqrt(f), "__powf(a, b)": f**g, "__log2f(a)": np.log2(f), "__log10f(a)": np.log10(f), "__exp10f(b)": 10**g,
        "__frsqrt_rn(a)": f**-0.5, "rsqrtf(a)": f**-0.5, "__fdividef(b, a)": g / f, "__saturatef(b)": np.clip(g, 0, 1),
        "sinpif(b)": np.sin(np.pi * g), "__ldg(&p[t])": f, "__frcp_rn(a)": 1 / f, "__fmaf_rn(a, b, a)": f * g + f,
        "__fadd_rn(a, b)": f + g, "__double2float_rn(double(a))": f, "__int2float_rn(int(t))": np.arange(N),
    }
    for row, (name, expected) in zip(compute(list(fast), "f4", f, g), fast.items(), strict=True):
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_half_precision_and_bfloat16_round_to_nearest_even() -> None:
    x = generator("half").normal(size=N).astype("f4") * 100
    x[:4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf, 65520
    before = "#include <cuda_fp16.h>\n#include <cuda_bf16.h>"
    found = compute(["__half2float(__float2half(a))", "float(__half(a))", "float(__nv_bfloat16(a))",
                     "__half2float(__ushort_as_half(__half_as_ushort(__half(a))))"], "f4", x, before=before)
    with np.errstate(over="ignore"):
        half = x.astype("f2").astype("f4")
    bits = x.view("u4")
    bfloat = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view("f4")
    for row, expected in zip(found, (half, half, bfloat, half), strict=True):
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("dtype", ["i4", "u4", "u8"])
def test_atomics_return_the_previous_value(dtype: str) -> None:
    name = {"i4": "int", "u4": "unsigned", "u8": "unsigned long long"}[dtype]
    start = np.array([5, 6, 7, 8, 12, 10, 9, 40], dtype)
    only = {
        "i4": "old[7] = atomicSub(&y[7], T(3));", "u8": "old[7] = atomicAdd(&y[7], T(3));",
        "u4": "atomicInc(&y[7], 41u); old[7] = atomicDec(&y[7], 99u);",
    }[dtype]
    body = f"""old[0] = atomicExch(&y[0], T(2)); old[1] = atomicMin(&y[1], T(3)); old[2] = atomicMax(&y[2], T(20));
    old[3] = atomicCAS(&y[3], T(8), T(1)); old[4] = atomicAnd(&y[4], T(6)); old[5] = atomicOr(&y[5], T(5));
    old[6] = atomicXor(&y[6], T(3)); {only}"""
    y, old = cupy.asarray(start), cupy.zeros(8, dtype)
    kernel(body, "T* y, T* old", f"using T = {name};")((1,), (1,), (y, old))
    last, last_old = {"i4": (37, 40), "u4": (40, 41), "u8": (43, 40)}[dtype]
    assert y.get().tolist() == [2, 3, 20, 1, 4, 15, 10, last]
    assert old.get().tolist() == [*start[:7].tolist(), last_old]


@pytest.mark.parametrize(("operation", "function"), [
    ("add", np.add), ("min", np.minimum), ("max", np.maximum), ("and", np.bitwise_and), ("or", np.bitwise_or),
    ("xor", np.bitwise_xor),
])
def test_reductions_of_a_warp(operation: str, function: np.ufunc) -> None:
    x = generator(operation).integers(0, 1000, N).astype("u4")
    found = compute([f"__reduce_{operation}_sync(~0u, a)"], "u4", x)[0]
    np.testing.assert_array_equal(found, function.reduce(x.reshape(2, 32), axis=1).repeat(32))


def test_votes_and_matches() -> None:
    x = generator("votes").integers(0, 4, N).astype("i4")
    found = compute(["__ballot_sync(~0u, a == 1)", "__match_any_sync(~0u, a)", "__any_sync(~0u, a == 2)",
                     "__all_sync(~0u, a < 3)", "__syncthreads_or(a == 1)", "__syncthreads_and(a < 4)",
                     "__syncthreads_count(a == 3)"], "u4", x)
    warps = x.reshape(2, 32)
    for t in range(N):
        warp = warps[t // 32]
        mask = [sum(int(yes) << lane for lane, yes in enumerate(warp == value)) for value in (1, x[t])]
        expected = [*mask, (warp == 2).any(), (warp < 3).all(), (x == 1).any(), (x < 4).all(), (x == 3).sum()]
        assert found[:, t].tolist() == expected, t

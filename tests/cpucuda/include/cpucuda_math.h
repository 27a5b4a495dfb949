// Integer, conversion and mathematical functions. Part of cpucuda_device.h.
#pragma once

#define CPUCUDA_LESS(A, B, C)                                                                                          \
    inline C min(A a, B b) { return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b); }   \
    inline C max(A a, B b) { return static_cast<C>(a) > static_cast<C>(b) ? static_cast<C>(a) : static_cast<C>(b); }
CPUCUDA_LESS(int, int, int)
CPUCUDA_LESS(unsigned, unsigned, unsigned)
CPUCUDA_LESS(int, unsigned, unsigned)
CPUCUDA_LESS(unsigned, int, unsigned)
CPUCUDA_LESS(long, long, long)
CPUCUDA_LESS(unsigned long, unsigned long, unsigned long)
CPUCUDA_LESS(long long, long long, long long)
CPUCUDA_LESS(unsigned long long, unsigned long long, unsigned long long)
#undef CPUCUDA_LESS
#define CPUCUDA_LESS(A, B, C)                                                                                          \
    inline C min(A a, B b) { return std::fmin(C(a), C(b)); }                                                           \
    inline C max(A a, B b) { return std::fmax(C(a), C(b)); }
CPUCUDA_LESS(float, float, float)
CPUCUDA_LESS(double, double, double)
CPUCUDA_LESS(float, double, double)
CPUCUDA_LESS(double, float, double)
#undef CPUCUDA_LESS

template <class T> T __ldg(const T* address) { return *address; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline long long clock64() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

namespace cpucuda {
template <class To, class From> To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
}  // namespace cpucuda
inline int __float_as_int(float x) { return cpucuda::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cpucuda::bits<unsigned>(x); }
inline float __int_as_float(int x) { return cpucuda::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cpucuda::bits<float>(x); }
inline long long __double_as_longlong(double x) { return cpucuda::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cpucuda::bits<double>(x); }
inline int __double2hiint(double x) { return int(__double_as_longlong(x) >> 32); }
inline int __double2loint(double x) { return int(__double_as_longlong(x)); }
inline double __hiloint2double(int high, int low) {
    return __longlong_as_double((long long)((unsigned long long)unsigned(high) << 32 | unsigned(low)));
}

// Conversions by rounding mode: rn to nearest even, rz towards zero, ru up, rd down. They saturate, and NaN becomes 0.
namespace cpucuda {
template <class To, class From> To saturate(From x) {
    constexpr From LIMIT = From(1ull << (sizeof(To) * 8 - 2)) * 2;  // one above the largest signed integer
    constexpr bool SIGNED = std::is_signed_v<To>;
    if (x != x) return 0;
    if (x >= (SIGNED ? LIMIT : LIMIT * 2)) return std::numeric_limits<To>::max();
    if (x < (SIGNED ? -LIMIT : From(0))) return std::numeric_limits<To>::min();
    return To(x);
}
}  // namespace cpucuda
#define CPUCUDA_ROUND(from, From, to, To)                                                                              \
    inline To __##from##2##to##_rn(From x) { return cpucuda::saturate<To>(std::nearbyint(x)); }                        \
    inline To __##from##2##to##_rz(From x) { return cpucuda::saturate<To>(std::trunc(x)); }                            \
    inline To __##from##2##to##_ru(From x) { return cpucuda::saturate<To>(std::ceil(x)); }                             \
    inline To __##from##2##to##_rd(From x) { return cpucuda::saturate<To>(std::floor(x)); }
#define CPUCUDA_ROUNDS(from, From)                                                                                     \
    CPUCUDA_ROUND(from, From, int, int)                                                                                \
    CPUCUDA_ROUND(from, From, uint, unsigned)                                                                          \
    CPUCUDA_ROUND(from, From, ll, long long)                                                                           \
    CPUCUDA_ROUND(from, From, ull, unsigned long long)
CPUCUDA_ROUNDS(float, float)
CPUCUDA_ROUNDS(double, double)
#undef CPUCUDA_ROUND
#undef CPUCUDA_ROUNDS
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __ll2float_rn(long long x) { return float(x); }
inline double __int2double_rn(int x) { return double(x); }
inline double __ll2double_rn(long long x) { return double(x); }
inline float __double2float_rn(double x) { return float(x); }

// Unary functions for float and double; the float result is the double result, rounded.
#define CPUCUDA_UNARY(name, expression)                                                                                \
    inline double name(double x) { return expression; }                                                                \
    inline float name##f(float x) { return float(name(double(x))); }                                                   \
    inline float name(float x) { return name##f(x); }
inline double cpucuda_mod2(double x) { return x - 2 * std::nearbyint(x / 2); }  // x modulo 2, in [-1, 1]
CPUCUDA_UNARY(sinpi, std::fabs(cpucuda_mod2(x)) == 1 ? 0.0 : std::sin(M_PI * cpucuda_mod2(x)))
CPUCUDA_UNARY(cospi, std::fabs(cpucuda_mod2(x)) == 0.5 ? 0.0 : std::cos(M_PI * cpucuda_mod2(x)))
CPUCUDA_UNARY(cyl_bessel_i0, std::cyl_bessel_i(0.0, std::fabs(x)))
CPUCUDA_UNARY(cyl_bessel_i1, x < 0 ? -std::cyl_bessel_i(1.0, -x) : std::cyl_bessel_i(1.0, x))
CPUCUDA_UNARY(normcdf, 0.5 * std::erfc(-x * M_SQRT1_2))
CPUCUDA_UNARY(rcbrt, 1 / std::cbrt(x))
#undef CPUCUDA_UNARY

// Operations that are never contracted to a fused multiply-add.
#define CPUCUDA_EXACT(name, operation)                                                                                 \
    __attribute__((noinline)) inline float __f##name##_rn(float a, float b) { return a operation b; }                  \
    __attribute__((noinline)) inline double __d##name##_rn(double a, double b) { return a operation b; }
CPUCUDA_EXACT(add, +)
CPUCUDA_EXACT(sub, -)
CPUCUDA_EXACT(mul, *)
CPUCUDA_EXACT(div, /)
#undef CPUCUDA_EXACT
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline double __drcp_rn(double x) { return 1 / x; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __frsqrt_rn(float x) { return 1 / std::sqrt(x); }
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrtf(float x) { return rsqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }

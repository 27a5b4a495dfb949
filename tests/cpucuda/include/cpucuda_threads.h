// Barriers, warp functions and atomic functions. Part of cpucuda_device.h.
#pragma once

inline void __syncthreads(unsigned line = __builtin_LINE()) { cpucuda::wait(CpuCudaBlock, 0, line); }
inline void __syncwarp(unsigned mask = ~0u) { cpucuda::wait(CpuCudaWarp, mask, 0); }
inline void __threadfence() { cpucuda::yield(); }
inline void __threadfence_system() { cpucuda::yield(); }
inline void __nanosleep(unsigned) { cpucuda::yield(); }
inline void __threadfence_block() {}

namespace cpucuda {

// Exchanges values in a warp: calls `function` with the values by lane and the mask of the lanes that came.
template <class T, class F> auto in_warp(unsigned mask, T value, F function) {
    alignas(16) static thread_local char memory[1024 * sizeof(T)];  // shared by the block
    T* values = reinterpret_cast<T*>(memory) + thread_of_block() / 32 * 32;
    std::memcpy(&values[lane()], &value, sizeof value);
    unsigned arrived = wait(CpuCudaWarp, mask, 0) & mask;
    auto result = function(values, arrived);
    wait(CpuCudaWarp, mask, 0);
    return result;
}
// Returns the value of another lane: one's own if it is out of range, NaN if that thread did not come.
template <class T> T exchange(unsigned mask, T value, int source, bool in_range) {
    return in_warp(mask, value, [=](T* values, unsigned arrived) {
        T other = value;
        if (in_range && arrived >> source & 1) std::memcpy(&other, &values[source], sizeof other);
        if (in_range && !(arrived >> source & 1)) std::memset(&other, 0xFF, sizeof other);
        return other;
    });
}
// Returns the mask of the lanes whose values satisfy the predicate.
template <class T, class F> unsigned ballot(unsigned mask, T value, F predicate) {
    return in_warp(mask, value, [=](T* values, unsigned arrived) {
        unsigned all = 0;
        for (int n = 0; n < 32; n++)
            if (arrived >> n & 1 && predicate(values[n])) all |= 1u << n;
        return all;
    });
}
template <class T, class F> T reduce(unsigned mask, T value, F step) {
    return in_warp(mask, value, [=](T* values, unsigned arrived) {
        T sum = value;
        for (int n = 0; n < 32; n++)
            if (arrived >> n & 1 && n != lane()) sum = step(sum, values[n]);
        return sum;
    });
}
// Counts the threads of the block, and those that vote yes.
struct Votes { int yes, all; };
inline Votes vote(bool yes, unsigned line) {
    static thread_local Votes sum;  // shared by the block
    wait(CpuCudaBlock, 0, line);
    sum = {0, 0};
    wait(CpuCudaBlock, 0, line);
    sum = {sum.yes + yes, sum.all + 1};
    wait(CpuCudaBlock, 0, line);
    return sum;
}

}  // namespace cpucuda

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    int own = cpucuda::lane();
    return cpucuda::exchange(mask, value, own / width * width + (lane & (width - 1)), true);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int own = cpucuda::lane(), source = own - int(delta);
    return cpucuda::exchange(mask, value, source, source >= own / width * width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int own = cpucuda::lane(), source = own + int(delta);
    return cpucuda::exchange(mask, value, source, source < (own / width + 1) * width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int own = cpucuda::lane(), source = own ^ bits;
    return cpucuda::exchange(mask, value, source, source < (own / width + 1) * width);
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
    return cpucuda::ballot(mask, yes, [](int other) { return other != 0; });
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, !yes) == 0; }
template <class T> unsigned __match_any_sync(unsigned mask, T value) {
    return cpucuda::ballot(mask, value, [=](T other) { return std::memcmp(&other, &value, sizeof value) == 0; });
}
#define CPUCUDA_REDUCE(name, T, expression)                                                                            \
    inline T __reduce_##name##_sync(unsigned mask, T value) {                                                          \
        return cpucuda::reduce(mask, value, [](T a, T b) { return T(expression); });                                   \
    }
CPUCUDA_REDUCE(add, unsigned, a + b)
CPUCUDA_REDUCE(add, int, a + b)
CPUCUDA_REDUCE(min, unsigned, a < b ? a : b)
CPUCUDA_REDUCE(min, int, a < b ? a : b)
CPUCUDA_REDUCE(max, unsigned, a > b ? a : b)
CPUCUDA_REDUCE(max, int, a > b ? a : b)
CPUCUDA_REDUCE(and, unsigned, a & b)
CPUCUDA_REDUCE(or, unsigned, a | b)
CPUCUDA_REDUCE(xor, unsigned, a ^ b)
#undef CPUCUDA_REDUCE
inline int __syncthreads_count(int yes, unsigned line = __builtin_LINE()) { return cpucuda::vote(yes, line).yes; }
inline int __syncthreads_or(int yes, unsigned line = __builtin_LINE()) { return cpucuda::vote(yes, line).yes > 0; }
inline int __syncthreads_and(int yes, unsigned line = __builtin_LINE()) {
    cpucuda::Votes votes = cpucuda::vote(yes, line);
    return votes.yes == votes.all;
}

#define CPUCUDA_ATOMIC(T, name, expression)                                                                            \
    inline T atomic##name(T* address, T value) {                                                                       \
        cpucuda::yield();                                                                                         \
        T old = *address;                                                                                              \
        *address = (expression);                                                                                       \
        return old;                                                                                                    \
    }
#define CPUCUDA_ATOMICS(T)                                                                                             \
    CPUCUDA_ATOMIC(T, Add, old + value)                                                                                \
    CPUCUDA_ATOMIC(T, Exch, value)                                                                                     \
    CPUCUDA_ATOMIC(T, Min, value < old ? value : old)                                                                  \
    CPUCUDA_ATOMIC(T, Max, value > old ? value : old)                                                                  \
    CPUCUDA_ATOMIC(T, And, old & value)                                                                                \
    CPUCUDA_ATOMIC(T, Or, old | value)                                                                                 \
    CPUCUDA_ATOMIC(T, Xor, old ^ value)                                                                                \
    inline T atomicCAS(T* address, T expected, T value) {                                                              \
        cpucuda::yield();                                                                                         \
        T old = *address;                                                                                              \
        if (old == expected) *address = value;                                                                         \
        return old;                                                                                                    \
    }
CPUCUDA_ATOMICS(int)
CPUCUDA_ATOMICS(unsigned)
CPUCUDA_ATOMICS(unsigned long long)
CPUCUDA_ATOMIC(int, Sub, old - value)
CPUCUDA_ATOMIC(unsigned, Sub, old - value)
CPUCUDA_ATOMIC(unsigned, Inc, old >= value ? 0 : old + 1)
CPUCUDA_ATOMIC(unsigned, Dec, old == 0 || old > value ? value : old - 1)
CPUCUDA_ATOMIC(float, Add, old + value)
CPUCUDA_ATOMIC(double, Add, old + value)
CPUCUDA_ATOMIC(float, Exch, value)
CPUCUDA_ATOMIC(long long, Min, value < old ? value : old)
CPUCUDA_ATOMIC(long long, Max, value > old ? value : old)
CPUCUDA_ATOMIC(long long, And, old & value)
CPUCUDA_ATOMIC(long long, Or, old | value)
CPUCUDA_ATOMIC(long long, Xor, old ^ value)
#undef CPUCUDA_ATOMIC
#undef CPUCUDA_ATOMICS

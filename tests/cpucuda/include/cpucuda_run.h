// How a grid runs: shared memory, blocks, and calls of the kernel. Part of cpucuda_device.h.
#pragma once

namespace cpucuda {

static const CpuCudaLaunch* current_launch;
static const char* failure;  // what went wrong in the kernel
static bool uses_fibers;
constexpr size_t MAX_SHARED = 227 << 10;
alignas(256) static char shared_memory[MAX_SHARED + CPUCUDA_GUARD];  // dynamic; the launch says how much
static thread_local char shared_anchor;

struct Range { char* start; size_t size; };

// Returns the memory of the module's __shared__ variables: its thread-local storage.
inline Range shared_variables() {
    static ptrdiff_t offset = -1, size;
    char* anchor = &shared_anchor;
    *static_cast<volatile char*>(anchor) = 0;  // allocates the storage
    if (offset < 0)
        dl_iterate_phdr([](dl_phdr_info* info, size_t, void* place) {
            auto* at = static_cast<char*>(place);
            auto* start = static_cast<char*>(info->dlpi_tls_data);
            for (int n = 0; n < info->dlpi_phnum && start; n++) {
                if (info->dlpi_phdr[n].p_type != PT_TLS || at < start || at >= start + info->dlpi_phdr[n].p_memsz)
                    continue;
                offset = at - start;
                size = ptrdiff_t(info->dlpi_phdr[n].p_memsz);
                return 1;
            }
            return 0;
        }, anchor);
    return {anchor - offset, size_t(size)};
}

// Fills the shared memory of a new block with NaN.
inline void clear_shared() {
    Range variables = shared_variables();
    std::memset(variables.start, 0xFF, variables.size);
    std::memset(shared_memory, 0xFF, current_launch->shared);
}
inline const char* check_shared() {
    bool broken = cpucuda_broken_guard(shared_memory + current_launch->shared);
    return broken ? "wrote beyond its dynamic shared memory" : failure;
}

inline unsigned thread_of_block() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
inline unsigned threads_of_block() { return blockDim.x * blockDim.y * blockDim.z; }
inline int lane() { return int(thread_of_block() % 32); }

inline void set_thread(unsigned n) {
    threadIdx = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
}
inline void set_block(unsigned long long n) {
    blockIdx = {unsigned(n % gridDim.x), unsigned(n / gridDim.x % gridDim.y), unsigned(n / gridDim.x / gridDim.y)};
}

// Resident blocks of a cooperative launch swap their shared memory in and out.
static unsigned resident;
static char* saved_shared;  // of every block but the resident one
inline void enter_block(unsigned n) {
    Range variables = shared_variables();
    size_t dynamic = current_launch->shared + CPUCUDA_GUARD;
    size_t size = variables.size + dynamic;
    char *old = saved_shared + resident * size, *next = saved_shared + n * size;
    if (n == resident) return;
    std::memcpy(old, variables.start, variables.size);
    std::memcpy(old + variables.size, shared_memory, dynamic);
    std::memcpy(variables.start, next, variables.size);
    std::memcpy(shared_memory, next + variables.size, dynamic);
    resident = n;
    set_block(n);
}

// Waits at a barrier. Other threads run meanwhile, so the built-in variables are restored.
inline unsigned wait(CpuCudaBarrier barrier, unsigned mask, unsigned line) {
    if (barrier == CpuCudaGrid && !current_launch->cooperative)
        failure = "waits for the grid, and was not launched cooperatively";
    if (barrier == CpuCudaWarp && !(mask >> lane() & 1)) failure = "the mask of a thread does not include the thread";
    if (threads_of_block() > 1 && !uses_fibers) failure = "waits in a header, where cpucuda does not look for barriers";
    if (!uses_fibers) return 1;
    uint3 own = threadIdx;
    unsigned arrived = current_launch->fibers.wait(failure ? CpuCudaYield : barrier, mask, line);
    threadIdx = own;
    return arrived;
}

// Lets the other threads of a cooperative launch run, one of which may write what this one polls.
inline void yield() {
    if (current_launch->cooperative) wait(CpuCudaYield, 0, 0);
}

// Not inlined: a kernel is compiled once, and not for each order of its threads.
template <auto KERNEL, class... A, size_t... N>
__noinline__ void call(void (*)(A...), void** parameters, std::index_sequence<N...>) {
    KERNEL(*static_cast<std::remove_cv_t<A>*>(parameters[N])...);
}
template <auto KERNEL, class... A> inline void call(void (*kernel)(A...), void** parameters) {
    call<KERNEL>(kernel, parameters, std::index_sequence_for<A...>());
}

// Flushes subnormal floats to zero, as -ftz=true does.
struct Flush {
#if defined(__SSE__)
    unsigned previous = __builtin_ia32_stmxcsr();
    explicit Flush(bool wanted) { if (wanted) __builtin_ia32_ldmxcsr(previous | 0x8040); }
    ~Flush() { __builtin_ia32_ldmxcsr(previous); }
#else
    explicit Flush(bool) {}
#endif
};

template <class... A> const size_t* parameter_sizes(void (*)(A...)) {
    static const size_t sizes[] = {sizeof(std::remove_cv_t<A>)..., 0};
    return sizes;
}
template <class... A> constexpr unsigned parameter_count(void (*)(A...)) { return sizeof...(A); }

template <auto KERNEL> const char* run(void** parameters, const CpuCudaLaunch* launch, bool needs_fibers, bool ftz) {
    Flush flush(ftz);
    current_launch = launch;
    failure = nullptr;
    uses_fibers = launch->cooperative || (needs_fibers && launch->block[0] * launch->block[1] * launch->block[2] > 1);
    gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    blockDim = {launch->block[0], launch->block[1], launch->block[2]};
    unsigned threads = threads_of_block();
    unsigned long long blocks = (unsigned long long)gridDim.x * gridDim.y * gridDim.z;
    auto body = [](void* data, unsigned n) {
        set_thread(n);
        call<KERNEL>(KERNEL, static_cast<void**>(data));
    };
    const char* error = nullptr;
    cpucuda_set_guard(shared_memory + launch->shared);
    if (launch->cooperative) {
        clear_shared();
        Range variables = shared_variables();
        size_t dynamic = launch->shared + CPUCUDA_GUARD, size = variables.size + dynamic;
        saved_shared = static_cast<char*>(std::malloc(size * blocks));
        for (unsigned n = 0; n < blocks; n++) {
            std::memset(saved_shared + n * size, 0xFF, variables.size);
            std::memcpy(saved_shared + n * size + variables.size, shared_memory, dynamic);
        }
        set_block(resident = 0);
        error = launch->fibers.run(unsigned(blocks), threads, body, parameters, enter_block, launch->seed);
        for (unsigned n = 0; n < blocks && !error; n++) {
            enter_block(n);
            error = check_shared();
        }
        std::free(saved_shared);
        return error;
    }
    CpuCudaOrder order(blocks, launch->seed);
    for (unsigned long long n = 0; n < blocks && !error; n++) {
        set_block(order[n]);
        clear_shared();
        if (uses_fibers)
            error = launch->fibers.run(1, threads, body, parameters, [](unsigned) {}, launch->seed);
        else if (launch->seed) {
            CpuCudaOrder inner(threads, launch->seed + n);
            for (unsigned i = 0; i < threads; i++) body(parameters, unsigned(inner[i]));
        } else {
            for (unsigned k = 0; k < blockDim.z; k++)
                for (unsigned j = 0; j < blockDim.y; j++)
                    for (unsigned i = 0; i < blockDim.x; i++) {
                        threadIdx = {i, j, k};
                        call<KERNEL>(KERNEL, parameters);
                    }
        }
        if (!error) error = failure;
    }
    return error ? error : check_shared();
}

}  // namespace cpucuda

// nvrtc.cpp appends these to a source: one for every kernel, with the threads per block of its launch bounds, and one
// for every variable of the device.
#define CPUCUDA_KERNEL(name, max_threads, ...)                                                                         \
    extern "C" __attribute__((visibility("default"), externally_visible)) const CpuCudaKernel cpucuda_kernel_##name = {                    \
        [](void** parameters, const CpuCudaLaunch* launch) {                                                           \
            return cpucuda::run<(__VA_ARGS__)>(parameters, launch, CPUCUDA_USES_FIBERS, CPUCUDA_FTZ);                  \
        }, cpucuda::parameter_count(__VA_ARGS__), cpucuda::parameter_sizes(__VA_ARGS__), max_threads};
#define CPUCUDA_VARIABLE(name, ...)                                                                                    \
    extern "C" __attribute__((visibility("default"), externally_visible)) const CpuCudaVariable cpucuda_variable_##name = {                \
        (void*)&(__VA_ARGS__), sizeof(__VA_ARGS__)};

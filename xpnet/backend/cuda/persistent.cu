// Many updates of a network in one launch: the parts that do not depend on the layers.
//
// GROUP blocks train one model. The first layer's weights, by far the largest array, are distributed over the group by
// input features, and stay in shared memory if they fit: each block multiplies its features with its rows of W, and the
// products are added up behind a barrier. From there on every feature of a layer (a "column": its values in all
// examples of the batch) belongs to a team of TEAM threads of one block, so that a layer between two products, batch
// norm too, needs no other block. Behind each product the group meets at a barrier. All sums have a fixed order.
//
// xpnet/training/kernel_source.py generates what stands before this text (the types T, X, C, Y, and the constants) and
// what follows (the layers, the rule, the loss, and `update`). The grid is
// GROUP blocks for each model; with one block per model there may be more models than blocks.
//
// Arrays of examples are (features, BATCH): threads that follow each other read examples that follow each other.

constexpr int TEAMS = THREADS / TEAM, PER = (BATCH + TEAM - 1) / TEAM;
constexpr int PARTS = (FEATURES + SLICE - 1) / SLICE;       // blocks of a group that have features
constexpr int ROWS = (BATCH + 3) / 4, ROOM = 4 * ROWS + 1;  // odd, so that a column of examples is in different banks
constexpr int CHUNKS = (SLICE + CHUNK - 1) / CHUNK;
constexpr int UNROLL = PER < 32 ? 32 / PER : 1;            // so that about 32 loads are under way
typedef unsigned long long U64;

// Waits for the group's blocks, and makes what they wrote visible.
__device__ void barrier() {
    if constexpr (GROUP > 1) cooperative_groups::this_grid().sync();
    else __syncthreads();
}

// Returns the sum over the threads of a team, the same bits in each. All threads of the block call it.
__device__ T team_sum(T value) {
    for (int far = 16; far; far /= 2) value += __shfl_xor_sync(0xffffffffu, value, far);
    if constexpr (TEAM > 32) {
        __shared__ T sums[THREADS / 32];
        constexpr int WARPS = TEAM / 32;
        __syncthreads();  // until the sum before was read
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
        __syncthreads();
        value = 0;
        for (int i = 0; i < WARPS; i++) value += sums[threadIdx.x / TEAM * WARPS + i];
    }
    return value;
}

// A feature and the examples that a thread of its team has: those from `lane` on, TEAM apart.
struct Column {
    int k, lane, n;
    bool live;  // otherwise the team has no feature: it has no examples, and only takes part in sums

    __device__ Column(int feature, int width, int examples)
        : k(feature < width ? feature : width - 1), lane(threadIdx.x % TEAM), n(feature < width ? examples : 0),
          live(feature < width) {}

    // Calls f(i, example) for each of the thread's examples.
    template <class F> __device__ void each(F f) const {
#pragma unroll
        for (int i = 0; i < PER; i++)
            if (lane + i * TEAM < n) f(i, lane + i * TEAM);
    }
    template <class F> __device__ T total(F f) const {
        T sum = 0;
        each([&](int i, int b) { sum += f(i, b); });
        return team_sum(sum);
    }
    __device__ bool leads() const { return live && lane == 0; }
    __device__ void load(T (&v)[PER], const T* from) const {
        each([&](int i, int b) { v[i] = from[b]; });
    }
    __device__ void store(const T (&v)[PER], T* to) const {
        each([&](int i, int b) { to[b] = v[i]; });
    }
};

// An array of parameters, and the optimiser's arrays for it.
struct Parameters {
    T *w, *slot0, *slot1;
    __device__ Parameters at(long long i) const { return {w + i, slot0 + i, slot1 + i}; }
};

// What an update of a model takes.
struct Step {
    Parameters first, weights, vectors;  // W1; the other weights; biases, gamma and beta
    T *running, *scratch, *losses;
    const T* numbers;  // hyper-parameters of the layers
    const unsigned* seed;
    const int *rows, *examples;  // the batch's, in x and among the targets
    const X* x;
    const C *offset, *scale;
    const Y* targets;
    T *xs, *ws;  // in shared memory: features of the batch, the block's rows of W1
    Rule rule;
    int n, step, rank, from, count, stride;  // examples; updates before; block of the group; its features; rows of W1

    // Returns the team's feature of a layer in a round, or one beyond the width.
    __device__ int feature(int round) const { return (round * TEAMS + threadIdx.x / TEAM) * GROUP + rank; }
    // Returns whether the block has a feature in a round.
    __device__ bool has(int round, int width) const { return round * TEAMS * GROUP + rank < width; }
    __device__ T* first_row(int k) const {
        return FIRST_IN_SHARED ? ws + k * FIRST_WIDTH : first.w + (long long)(from + k) * stride;
    }
};

__device__ void descend(const Step& s, T& w, T g, T& slot0, T& slot1, bool weight);

// Draws what NumPy's Philox generator draws in float32, seeded with SeedSequence(seed, spawn_key=(purpose, counter)).
__device__ unsigned hashed(unsigned value, unsigned& factor, unsigned multiplier) {
    value ^= factor;
    factor *= multiplier;
    value *= factor;
    return value ^ value >> 16;
}
__device__ __noinline__ float uniform(const unsigned* seed, unsigned purpose, unsigned counter, unsigned index) {
    unsigned pool[4], factor = 0x43b0d7e5u;
    auto mix = [&](unsigned& into, unsigned value) {
        into = 0xca01f9ddu * into - 0x4973f715u * hashed(value, factor, 0x931e8875u);
        into ^= into >> 16;
    };
#pragma unroll
    for (int i = 0; i < 4; i++) pool[i] = hashed(seed[i], factor, 0x931e8875u);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i != j) mix(pool[j], pool[i]);
#pragma unroll
    for (int j = 0; j < 4; j++) mix(pool[j], purpose);
#pragma unroll
    for (int j = 0; j < 4; j++) mix(pool[j], counter);
    factor = 0x8b51f9ddu;
#pragma unroll
    for (int j = 0; j < 4; j++) pool[j] = hashed(pool[j], factor, 0x58f38dedu);
    U64 key0 = pool[0] | U64(pool[1]) << 32, key1 = pool[2] | U64(pool[3]) << 32;
    U64 a = index / 8 + 1, b = 0, c = 0, d = 0;  // the counter, from 1, for each 8 draws
    for (int round = 0; round < 10; round++) {
        U64 high0 = __umul64hi(0xD2E7470EE14C6C93ull, a), low0 = 0xD2E7470EE14C6C93ull * a;
        U64 high1 = __umul64hi(0xCA5A826395121157ull, c), low1 = 0xCA5A826395121157ull * c;
        a = high1 ^ b ^ key0;
        b = low1;
        c = high0 ^ d ^ key1;
        d = low0;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    unsigned word = index % 8 / 2;
    U64 drawn = word == 0 ? a : word == 1 ? b : word == 2 ? c : d;
    return float(unsigned(index % 2 ? drawn >> 32 : drawn) >> 8) * (1.0f / 16777216.0f);
}

// Loads features of the batch into shared memory, standardised, from the block's feature `from` on.
__device__ void gather(const Step& s, int from) {
    for (int i = threadIdx.x; i < s.n * CHUNK; i += THREADS) {
        int b = i / CHUNK, k = i % CHUNK, feature = s.from + from + k;
        if (from + k >= s.count) continue;
        X value = s.x[(long long)s.rows[b] * FEATURES + feature];
        s.xs[k * ROOM + b] = STANDARDIZES ? T((C(value) - s.offset[feature]) * s.scale[feature]) : T(value);
    }
}

// Multiplies features in shared memory with their rows of W1: (FIRST_WIDTH, BATCH), added to what is there or not.
// A thread has 4 examples and 8 outputs at a time.
__device__ void multiply(const Step& s, int from, T* to, bool add) {
    constexpr int WIDE = (FIRST_WIDTH + 7) / 8;
    int count = min(CHUNK, s.count - from);
    for (int tile = threadIdx.x; tile < ROWS * WIDE; tile += THREADS) {
        int b = tile % ROWS, n = tile / ROWS * 8;
        T sum[4][8] = {};
        for (int k = 0; k < count; k++) {
            const T* row = s.first_row(from + k);
            T x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = s.xs[k * ROOM + b + i * ROWS];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                T w = row[min(n + j, FIRST_WIDTH - 1)];
#pragma unroll
                for (int i = 0; i < 4; i++) sum[i][j] += x[i] * w;
            }
        }
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + j < FIRST_WIDTH && b + i * ROWS < s.n) {
                    T& result = to[(n + j) * BATCH + b + i * ROWS];
                    result = add ? result + sum[i][j] : sum[i][j];
                }
    }
}

// Changes rows of W1 by the product of features in shared memory and the gradient dz. A thread has 2 rows and 4 outputs
// at a time.
__device__ void descend_first(const Step& s, int from, const T* dz) {
    constexpr int TALL = (CHUNK + 1) / 2, WIDE = (FIRST_WIDTH + 3) / 4;
    int count = min(CHUNK, s.count - from);
    for (int tile = threadIdx.x; tile < TALL * WIDE; tile += THREADS) {
        int k = tile % TALL, n = tile / TALL * 4;
        T sum[2][4] = {};
#pragma unroll 4
        for (int b = 0; b < s.n; b++) {
            T x[2] = {s.xs[k * ROOM + b], s.xs[min(k + TALL, CHUNK - 1) * ROOM + b]};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                T d = dz[min(n + j, FIRST_WIDTH - 1) * BATCH + b];
                sum[0][j] += x[0] * d;
                sum[1][j] += x[1] * d;
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int row = k + i * TALL;
                if (row >= count || row >= CHUNK || n + j >= FIRST_WIDTH) continue;
                Parameters p = s.first.at((long long)(s.from + from + row) * s.stride + n + j);
                descend(s, s.first_row(from + row)[n + j], sum[i][j], *p.slot0, *p.slot1, true);
            }
    }
}

// Adds up the products that the group's blocks made for a column of the first layer.
__device__ void add_up(const Column& c, const T* products, T bias, T (&v)[PER]) {
    c.each([&](int i, int b) { v[i] = 0; });
#pragma unroll UNROLL
    for (int part = 0; part < PARTS; part++)
        c.each([&](int i, int b) { v[i] += products[(part * FIRST_WIDTH + c.k) * BATCH + b]; });
    c.each([&](int i, int b) { v[i] += bias; });
}

// A column of `a @ W + bias` for W (INPUTS, WIDTH).
template <int INPUTS, int WIDTH>
__device__ void dense(const Column& c, const T* a, const T* w, T bias, T (&v)[PER]) {
    c.each([&](int i, int b) { v[i] = 0; });
#pragma unroll UNROLL
    for (int k = 0; k < INPUTS; k++) {
        T factor = w[k * WIDTH + c.k];
        c.each([&](int i, int b) { v[i] += a[k * BATCH + b] * factor; });
    }
    c.each([&](int i, int b) { v[i] += bias; });
}

// A column of `dz @ W.T`, after which the row of W that makes it takes its gradient.
template <int WIDTH>
__device__ void dense_backward(const Step& s, const Column& c, const T* a, const T* dz, Parameters p, T (&v)[PER]) {
    Parameters row = p.at(c.k * WIDTH);
    c.each([&](int i, int b) { v[i] = 0; });
#pragma unroll UNROLL
    for (int n = 0; n < WIDTH; n++)
        c.each([&](int i, int b) { v[i] += dz[n * BATCH + b] * row.w[n]; });
    __syncthreads();  // until the team has read the row
    for (int n = c.lane; c.live && n < WIDTH; n += TEAM) {
        T g = 0;
#pragma unroll 8
        for (int b = 0; b < c.n; b++) g += a[c.k * BATCH + b] * dz[n * BATCH + b];
        descend(s, row.w[n], g, row.slot0[n], row.slot1[n], true);
    }
}

// Changes a column's entry of a vector of parameters by its gradient.
__device__ void descend_vector(const Step& s, const Column& c, Parameters p, T g) {
    if (c.leads()) descend(s, *p.w, g, *p.slot0, *p.slot1, false);
}

__device__ void update(const Step& s);
__device__ Rule rule_of(const T* numbers, const T* rates);

extern "C" __global__ void __launch_bounds__(THREADS, 1) train(
    const X* x, const C* offset, const C* scale, const Y* targets, const int* rows, const int* examples,
    const int* sizes, T* first, T* first0, T* first1, T* weights, T* weights0, T* weights1, T* vectors, T* vectors0,
    T* vectors1, T* running, const T* numbers, const T* rates, const unsigned* seeds, T* scratch, T* losses,
    int models, int updates, int step) {
    extern __shared__ double memory[];
    Step s;
    s.x = x;
    s.offset = offset;
    s.scale = scale;
    s.targets = targets;
    s.xs = reinterpret_cast<T*>(memory);
    s.ws = s.xs + CHUNK * ROOM;
    s.rank = blockIdx.x % GROUP;
    s.from = s.rank * SLICE;
    s.count = max(0, min(SLICE, FEATURES - s.from));
    s.stride = models * FIRST_WIDTH;
    s.scratch = scratch + (long long)(blockIdx.x / GROUP) * SCRATCH;
    for (int model = blockIdx.x / GROUP; model < models; model += gridDim.x / GROUP) {
        s.first = Parameters{first, first0, first1}.at(model * FIRST_WIDTH);
        s.weights = Parameters{weights, weights0, weights1}.at((long long)model * WEIGHTS);
        s.vectors = Parameters{vectors, vectors0, vectors1}.at((long long)model * VECTORS);
        s.running = running + (long long)model * RUNNING;
        s.numbers = numbers + model * NUMBERS;
        s.seed = seeds + (SEEDS > 1 ? 4 * model : 0);
        for (int i = threadIdx.x; FIRST_IN_SHARED && i < s.count * FIRST_WIDTH; i += THREADS)
            s.ws[i] = s.first.w[(long long)(s.from + i / FIRST_WIDTH) * s.stride + i % FIRST_WIDTH];
        for (int u = 0; u < updates; u++) {
            s.n = sizes[u];
            s.step = step + u;
            s.rows = rows + (long long)u * BATCH;
            s.examples = examples + (long long)u * BATCH;
            s.losses = losses + (long long)u * models + model;
            s.rule = rule_of(s.numbers, rates + ((long long)u * models + model) * RATES);
            update(s);
        }
        for (int i = threadIdx.x; FIRST_IN_SHARED && i < s.count * FIRST_WIDTH; i += THREADS)
            s.first.w[(long long)(s.from + i / FIRST_WIDTH) * s.stride + i % FIRST_WIDTH] = s.ws[i];
    }
}

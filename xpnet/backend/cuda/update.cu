// The update of all parameters of all models: penalty, clipping, decay, and the rule.
//
// A block has one model and one segment (y and z of the grid), whose elements lie in rows of ``width``, ``row`` apart.

#define THREADS 256
#define DESCENT 0  // values of RULE
#define MOMENTUM 1
#define NESTEROV 2
#define ADAM 3
enum { FIRST, SECOND, EPS, PENALTY, DECAY, CLIP };  // rows of the table of hyper-parameters

__device__ long long place(const Segment& s, int index, int m) {
    return (long long)(index / s.width) * s.row + m * s.model + index % s.width;
}

__device__ T gradient(const Update& p, const Segment& s, long long at, T penalty) {
#if PENALIZES
    if (s.is_weight) return s.g[at] + penalty * s.w[at];
#endif
    return s.g[at];
}

__device__ double block_sum(double value, double* part) {
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}

// In double precision: squares of large floats would overflow.
extern "C" __global__ void __launch_bounds__(THREADS) square_gradients(Update p) {
    __shared__ double part[THREADS];
    int m = blockIdx.y;
    T penalty = T(p.hyper[PENALTY * p.models + m]);
    double sum = 0;
    for (int n = 0; n < SEGMENTS; n++)
        for (int index = blockIdx.x * THREADS + threadIdx.x; index < p.segments[n].size; index += gridDim.x * THREADS) {
            double g = gradient(p, p.segments[n], place(p.segments[n], index, m), penalty);
            sum += g * g;
        }
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) p.squares[m * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) limit_gradients(Update p) {  // with a thread for each part
    __shared__ double part[THREADS];
    int m = blockIdx.x;
    double norm = sqrt(block_sum(p.squares[m * blockDim.x + threadIdx.x], part)), limit = p.hyper[CLIP * p.models + m];
    // NaN and infinity stay, so that the step after this one finds them.
    if (threadIdx.x == 0) p.scale[m] = T(norm > limit ? limit / norm : 1.0);
}

extern "C" __global__ void __launch_bounds__(THREADS) update(Update p, const T* rates, double rate, long long step) {
    const Segment& s = p.segments[blockIdx.z];
    int m = blockIdx.y;
    __shared__ T factors[8];
    if (threadIdx.x == 0) {  // once in a block, since most GPUs are slow in double precision
        const double* hyper = p.hyper + m;
        double lr = rates ? (double)rates[m] : rate, first = hyper[FIRST * p.models], second = hyper[SECOND * p.models];
        factors[0] = T(hyper[PENALTY * p.models]);
        factors[1] = T(1.0 - lr * hyper[DECAY * p.models]);
        factors[2] = T(RULE == ADAM ? lr / (1.0 - pow(first, (double)(step + 1))) : lr);
        factors[3] = T(first);
        factors[4] = T(1.0 - first);
        factors[5] = T(second);
        factors[6] = T(1.0 - second);
        factors[7] = T(RULE == ADAM ? 1.0 - pow(second, (double)(step + 1)) : 1.0);
    }
    __syncthreads();
    T lr = factors[2], eps = T(p.hyper[EPS * p.models + m]);
    for (int index = blockIdx.x * THREADS + threadIdx.x; index < s.size; index += gridDim.x * THREADS) {
        long long at = place(s, index, m);
        T g = gradient(p, s, at, factors[0]), w = s.w[at];
#if CLIPS
        g *= p.scale[m];
#endif
#if DECAYS
        if (s.is_weight) w *= factors[1];
#endif
#if RULE == ADAM
        T mean = s.first[at] = factors[3] * s.first[at] + factors[4] * g;
        T square = s.second[at] = factors[5] * s.second[at] + factors[6] * (g * g);
        w -= lr * mean / (sqrt(square / factors[7]) + eps);
#else
#if RULE == MOMENTUM || RULE == NESTEROV
        T v = s.first[at] = factors[3] * s.first[at] + g;
        g = RULE == NESTEROV ? g + factors[3] * v : v;
#endif
        w -= lr * g;
#endif
        s.w[at] = w;
    }
}

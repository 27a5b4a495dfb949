// The loss of a batch, its gradient with respect to the last product, and that of the bias between them.
//
// One block per model. Its threads are lanes x rows, with lanes a power of two up to 32: the lanes share a row, and are
// neighbours in a warp. All sums are added in one order.

#define THREADS 512

__device__ T over_lanes(T value) {
    for (int step = blockDim.x / 2; step; step /= 2) value += __shfl_xor_sync(0xFFFFFFFF, value, step);
    return value;
}

__device__ T over_rows(T value, T* part) {  // of threads with the same lane
    int t = threadIdx.y * blockDim.x + threadIdx.x;
    part[t] = value;
    __syncthreads();
    for (int half = blockDim.y / 2 * blockDim.x; half >= blockDim.x; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    T sum = part[threadIdx.x];
    __syncthreads();
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) loss(Loss p, T* value) {
    __shared__ T part[THREADS];
    int m = blockIdx.x, lanes = blockDim.x, rows = blockDim.y;
    const T* bias = p.bias ? p.bias + m * p.bias_model : nullptr;
    T sum = 0;
    for (int start = 0; start < p.n; start += rows) {  // of all threads alike, since lanes exchange values
        int i = start + threadIdx.y, k = i < p.n ? p.k : 0;
        const T* z = p.z + m * p.z_model + i * p.z_row;
        const T* target = p.targets + (long long)i * p.k;
        T* dz = p.dz + m * p.z_model + i * p.z_row;
        T each = 0;
#if SOFTMAX
        T largest = !k ? T(0) : bias ? z[0] + bias[0] : z[0], total = 0;
        for (int j = threadIdx.x; j < k; j += lanes) {
            T x = bias ? z[j] + bias[j] : z[j];
            largest = x > largest ? x : largest;
            dz[j] = x;
        }
        for (int step = lanes / 2; step; step /= 2) {
            T other = __shfl_xor_sync(0xFFFFFFFF, largest, step);
            largest = other > largest ? other : largest;
        }
        for (int j = threadIdx.x; j < k; j += lanes) {
            T shifted = dz[j] - largest, e = exp(shifted);
            each -= shifted * target[j];
            total += e;
            dz[j] = e;
        }
        each = over_lanes(each);
        total = over_lanes(total);
        for (int j = threadIdx.x; j < k; j += lanes) dz[j] = (dz[j] / total - target[j]) * T(1.0 / p.n);
        if (k && threadIdx.x == 0) sum += log(total) + each;
#else
        for (int j = threadIdx.x; j < k; j += lanes) {
            T off = (bias ? z[j] + bias[j] : z[j]) - target[j];
            each += off * off;
            dz[j] = off * T(2.0 / ((double)p.n * p.k));
        }
        each = over_lanes(each);
        if (threadIdx.x == 0) sum += each;
#endif
    }
    sum = over_rows(sum, part);
    if (threadIdx.x == 0 && threadIdx.y == 0) value[m] = sum * T(1.0 / (SOFTMAX ? p.n : (double)p.n * p.k));
    if (!p.dbias) return;
    for (int start = 0; start < p.k; start += lanes) {
        int j = start + threadIdx.x;
        const T* dz = p.dz + m * p.z_model + j;
        T column = 0;
        for (int i = threadIdx.y; j < p.k && i < p.n; i += rows) column += dz[i * p.z_row];
        column = over_rows(column, part);
        if (j < p.k && threadIdx.y == 0) p.dbias[m * p.bias_model + j] = column;
    }
}

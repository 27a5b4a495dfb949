// Gather the rows of a batch: convert them, standardise them, and make targets of their labels.
//
// X, INDEX and LABEL are the types of what is given; S is the type in which features are standardised. One block in x
// is one row.

template <class V> __device__ V number(V value) { return value; }
#if HALF
__device__ float number(half value) { return __half2float(value); }  // it becomes no double by itself
#endif

extern "C" __global__ void __launch_bounds__(256) gather_rows(Rows p, const INDEX* chosen) {
    long long i = blockIdx.x, r = chosen[i], from = p.only ? p.only[r] : r;
    const X* x = p.x + from * p.x_row;
    T* out = p.out + i * p.features;
    int stop = min(p.features, (int)(blockIdx.y + 1) * PER_BLOCK);
    for (int j = blockIdx.y * PER_BLOCK + threadIdx.x; j < stop; j += blockDim.x) {
        auto given = number(x[j * p.x_column]);
#if SCALES
        out[j] = T((S(given) - p.offset[j]) * p.scale[j]);
#else
        out[j] = T(given);
#endif
    }
    if (blockIdx.y) return;
    for (int j = threadIdx.x; j < p.outputs; j += blockDim.x) {
#if ONE_HOT
        p.targets[i * p.outputs + j] = T(p.labels[r] == j);
#else
        p.targets[i * p.outputs + j] = T(number(p.labels[r * p.outputs + j]));
#endif
    }
}

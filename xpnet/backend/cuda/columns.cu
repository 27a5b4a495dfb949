// What lies between two products: bias, batch normalisation, and functions of single numbers.
//
// A block has TX features of one model, and up to TY rows at a time, a power of two. Sums over the batch are added in
// one order whatever the hardware does: each thread adds its rows, and a tree adds the threads. The forward pass keeps
// nothing but the input, the mean and the deviation; the backward pass computes the rest again.

#define TX 8
#define TY 32

__device__ T column_sum(T value, T (*part)[TX]) {
    part[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.y / 2; half; half /= 2) {
        if (threadIdx.y < half) part[threadIdx.y][threadIdx.x] += part[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    T sum = part[0][threadIdx.x];
    __syncthreads();
    return sum;
}

extern "C" __global__ void __launch_bounds__(TX* TY, 1) columns_forward(Columns p, long long step) {
    int j = blockIdx.x * TX + threadIdx.x, m = blockIdx.y;
    int first = j < p.k ? threadIdx.y : p.n;  // threads beyond the last feature have no rows, but meet at the barriers
    const T* z = p.z + m * p.z_model + j;
    T* y = p.y + m * p.y_model + j;
#if BIAS
    T bias = j < p.k ? p.bias[m * p.bias_model + j] : T(0);
#else
    T bias = 0;
#endif
#if NORM
    __shared__ T part[TY][TX];
    T share = T(1.0 / p.n), sum = 0, squares = 0;
    for (int i = first; i < p.n; i += blockDim.y) sum += z[i * p.z_row] + bias;
    T mean = column_sum(sum, part) * share;
    for (int i = first; i < p.n; i += blockDim.y) {
        T centred = z[i * p.z_row] + bias - mean;
        squares += centred * centred;
    }
    T var = column_sum(squares, part) * share, deviation = sqrt(var + T(p.eps)), gamma = 0, beta = 0;
    if (j < p.k) gamma = p.gamma[m * p.norm_model + j], beta = p.beta[m * p.norm_model + j];
    if (j < p.k && threadIdx.y == 0) {
        p.mean[(long long)m * p.k + j] = mean;
        p.deviation[(long long)m * p.k + j] = deviation;
        T* running_mean = p.running_mean + m * p.running_model + j;
        T* running_var = p.running_var + m * p.running_model + j;
        // Set, not added, at first: the initial 1 would round a small variance.
        *running_mean = step ? *running_mean + T(p.rate) * (mean - *running_mean) : mean;
        *running_var = step ? *running_var + T(p.rate) * (var - *running_var) : var;
    }
#endif
    for (int i = first; i < p.n; i += blockDim.y) {
        T value = z[i * p.z_row] + bias, slope;
#if NORM
        value = fma(value - mean, gamma / deviation, beta);
#endif
        y[i * p.y_row] = apply(p, value, m, (long long)i * p.k + j, slope);
    }
}

extern "C" __global__ void __launch_bounds__(TX* TY, 1) columns_backward(Columns p, long long step) {
    __shared__ T part[TY][TX];
    int j = blockIdx.x * TX + threadIdx.x, m = blockIdx.y;
    int first = j < p.k ? threadIdx.y : p.n;
    const T* z = p.z + m * p.z_model + j;
    const T* dy = p.dy + m * p.y_model + j;
    T* dz = p.dz + m * p.z_model + j;
    T sum = 0, slope;
#if BIAS
    T bias = j < p.k ? p.bias[m * p.bias_model + j] : T(0);
#else
    T bias = 0;
#endif
#if NORM
    // With x_hat = centred / deviation:  dbeta = sum(dy),  dgamma = sum(dy x_hat),
    // dx = scale * (dy - mean(dy) - x_hat * mean(dy x_hat)).
    T mean = 0, deviation = 1, gamma = 0, beta = 0, products = 0;
    if (j < p.k) {
        mean = p.mean[(long long)m * p.k + j], deviation = p.deviation[(long long)m * p.k + j];
        gamma = p.gamma[m * p.norm_model + j], beta = p.beta[m * p.norm_model + j];
    }
    T scale = gamma / deviation, share = T(1.0 / p.n);
    for (int i = first; i < p.n; i += blockDim.y) {
        T centred = z[i * p.z_row] + bias - mean;
        apply(p, fma(centred, scale, beta), m, (long long)i * p.k + j, slope);
        T d = dy[i * p.y_row] * slope;
        sum += d;
        products += d * centred;
    }
    T dbeta = column_sum(sum, part), dgamma = column_sum(products, part) / deviation;
    if (j < p.k && threadIdx.y == 0) {
        p.dbeta[m * p.norm_model + j] = dbeta;
        p.dgamma[m * p.norm_model + j] = dgamma;
    }
    if (!p.dz) return;
    T from_mean = dbeta * share, from_deviation = dgamma / deviation * share;
    for (int i = first; i < p.n; i += blockDim.y) {
        T centred = z[i * p.z_row] + bias - mean;
        apply(p, fma(centred, scale, beta), m, (long long)i * p.k + j, slope);
        dz[i * p.z_row] = (dy[i * p.y_row] * slope - from_mean - centred * from_deviation) * scale;
    }
#else
    for (int i = first; i < p.n; i += blockDim.y) {
        apply(p, z[i * p.z_row] + bias, m, (long long)i * p.k + j, slope);
        T d = dy[i * p.y_row] * slope;
        sum += d;
        dz[i * p.z_row] = d;
    }
#if BIAS
    T dbias = column_sum(sum, part);
    if (j < p.k && threadIdx.y == 0) p.dbias[m * p.bias_model + j] = dbias;
#endif
#endif
}

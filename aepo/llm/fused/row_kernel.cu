// Rows of logits to statistics, and to the gradient by them, which may overwrite them. No matrix product.
//
// Letters: n rows that take part, V columns (the vocabulary). One block of THREADS threads sums a row; every thread
// strides over it in vectors of 16 bytes and the threads' sums are joined in a fixed tree, without atomics, so equal
// calls give equal bits.
//
// Without nvcc the file is plain C++, whose threads run one after the other: that is how tests check its arithmetic
// where there is no GPU.

#include "row_arithmetic.cuh"

namespace {

#ifdef __CUDACC__

__device__ Sums from_lane(Sums sums, int distance) {
    constexpr unsigned ALL = 0xffffffffu;
    Sums other;
    other.top = __shfl_down_sync(ALL, sums.top, distance);
    other.mass = __shfl_down_sync(ALL, sums.mass, distance);
    other.mass_t = __shfl_down_sync(ALL, sums.mass_t, distance);
    other.moment = __shfl_down_sync(ALL, sums.moment, distance);
    return other;
}

__device__ Sums of_warp(Sums sums, int lanes, float inverse_t, Asked asked) {
    for (int distance = lanes / 2; distance; distance /= 2) sums.join(from_lane(sums, distance), inverse_t, asked);
    return sums;
}

template <class T>
__global__ void __launch_bounds__(THREADS) statistics_kernel(const T* logits, StatisticsCall call) {
    int64_t row = blockIdx.x;
    float inverse_t = call.inverse_t(row);
    Sums sums = thread_sums(logits + call.place(row), call.columns, threadIdx.x, inverse_t, call.asked);
    sums = of_warp(sums, 32, inverse_t, call.asked);
    constexpr int WARPS = THREADS / 32;
    __shared__ float shared[4][WARPS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) {
        shared[0][warp] = sums.top;
        shared[1][warp] = sums.mass;
        shared[2][warp] = sums.mass_t;
        shared[3][warp] = sums.moment;
    }
    __syncthreads();
    if (warp) return;
    Sums mine;
    if (lane < WARPS) {
        mine.top = shared[0][lane];
        mine.mass = shared[1][lane];
        mine.mass_t = shared[2][lane];
        mine.moment = shared[3][lane];
    }
    mine = of_warp(mine, WARPS, inverse_t, call.asked);
    if (lane == 0) call.write(row, mine, logits);
}

template <class T>
__global__ void __launch_bounds__(THREADS) gradient_kernel(const T* logits, T* out, GradientCall call) {
    thread_gradient(logits, out, call, blockIdx.x, blockIdx.y, threadIdx.x);
}

template <class T>
int run_statistics(const void* logits, const StatisticsCall& call, void* stream) {
    statistics_kernel<<<static_cast<unsigned>(call.rows), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(logits), call);
    return cudaGetLastError();
}

template <class T>
int run_gradient(const void* logits, void* out, const GradientCall& call, void* stream) {
    dim3 grid(static_cast<unsigned>(call.rows), static_cast<unsigned>(parts_of(call.columns, Split<T>::WIDTH)));
    gradient_kernel<<<grid, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const T*>(logits), static_cast<T*>(out), call);
    return cudaGetLastError();
}

// At least three blocks a multiprocessor, which is at most 40 registers: their loads hide one another's.
template <class T>
__global__ void __launch_bounds__(THREADS, 3) narrowed_gradient_kernel(const float* logits, T* out, GradientCall call) {
    int64_t row = blockIdx.x;
    const float* from = logits + call.row_of(row) * call.row_stride;
    T* to = out + row * call.out_stride;
    RowGradient gradient(call, row);
    int64_t label = call.label[row];
    for (int64_t start = 0; start < call.columns; start += PART) {
        float z[READS_PER_PART][READ];
        read_part(from, start, call.columns, threadIdx.x, z);
        __syncthreads();
        write_part(z, to, start, call.columns, threadIdx.x, gradient, label);
    }
}

template <class T>
int run_narrowed_gradient(const float* logits, void* out, const GradientCall& call, void* stream) {
    narrowed_gradient_kernel<<<static_cast<unsigned>(call.rows), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(
        logits, static_cast<T*>(out), call);
    return cudaGetLastError();
}

#else

// The tree of the two levels of shuffles.
Sums joined(Sums* sums, int count, float inverse_t, Asked asked) {
    for (int distance = count / 2; distance; distance /= 2)
        for (int i = 0; i < distance; ++i) sums[i].join(sums[i + distance], inverse_t, asked);
    return sums[0];
}

template <class T>
int run_statistics(const void* memory, const StatisticsCall& call, void*) {
    const T* logits = static_cast<const T*>(memory);
    for (int64_t row = 0; row < call.rows; ++row) {
        float inverse_t = call.inverse_t(row);
        Sums warps[THREADS / 32];
        for (int warp = 0; warp < THREADS / 32; ++warp) {
            Sums lanes[32];
            for (int lane = 0; lane < 32; ++lane)
                lanes[lane] =
                    thread_sums(logits + call.place(row), call.columns, warp * 32 + lane, inverse_t, call.asked);
            warps[warp] = joined(lanes, 32, inverse_t, call.asked);
        }
        call.write(row, joined(warps, THREADS / 32, inverse_t, call.asked), logits);
    }
    return 0;
}

template <class T>
int run_gradient(const void* memory, void* out, const GradientCall& call, void*) {
    for (int64_t row = 0; row < call.rows; ++row)
        for (int64_t part = 0; part < parts_of(call.columns, Split<T>::WIDTH); ++part)
            for (int thread = 0; thread < THREADS; ++thread)
                thread_gradient(static_cast<const T*>(memory), static_cast<T*>(out), call, row, part, thread);
    return 0;
}

template <class T>
int run_narrowed_gradient(const float* logits, void* out, const GradientCall& call, void*) {
    for (int64_t row = 0; row < call.rows; ++row) {
        RowGradient gradient(call, row);
        for (int64_t start = 0; start < call.columns; start += PART) {
            static float z[THREADS][READS_PER_PART][READ];
            for (int thread = 0; thread < THREADS; ++thread)
                read_part(logits + call.row_of(row) * call.row_stride, start, call.columns, thread, z[thread]);
            for (int thread = 0; thread < THREADS; ++thread)
                write_part(z[thread], static_cast<T*>(out) + row * call.out_stride, start, call.columns, thread,
                           gradient, call.label[row]);
        }
    }
    return 0;
}

#endif

}  // namespace

// Types: 0 float32, 1 bfloat16, 2 float16. All return a cudaError_t, 0 for success, or -1 for an unknown type.

extern "C" int aepo_statistics(int type, const void* logits, int64_t rows, int64_t columns, int64_t row_stride,
                               const int64_t* index, const int64_t* label, const float* temperature, float* partial,
                               int entropy, int entropy_tempered, void* stream) {
    Asked asked{temperature != nullptr, entropy != 0, entropy_tempered != 0};
    StatisticsCall call{rows, columns, row_stride, index, label, temperature, partial, asked};
    switch (type) {
        case 0: return run_statistics<float>(logits, call, stream);
        case 1: return run_statistics<bfloat_t>(logits, call, stream);
        case 2: return run_statistics<half_t>(logits, call, stream);
        default: return -1;
    }
}

extern "C" int aepo_gradient(int type, const void* logits, void* out, int64_t rows, int64_t columns,
                             int64_t row_stride, int64_t out_stride, const int64_t* index, const int64_t* label,
                             const float* temperature, const float* log_mass, const float* log_mass_t,
                             const float* entropy, const float* by_logp, const float* by_logp_t,
                             const float* by_entropy, int entropy_tempered, void* stream) {
    GradientCall call{rows,     columns,    row_stride, out_stride, index,     label,      temperature,
                      log_mass, log_mass_t, entropy,    by_logp,    by_logp_t, by_entropy, entropy_tempered != 0, 0.0f};
    switch (type) {
        case 0: return run_gradient<float>(logits, out, call, stream);
        case 1: return run_gradient<bfloat_t>(logits, out, call, stream);
        case 2: return run_gradient<half_t>(logits, out, call, stream);
        default: return -1;
    }
}

// Of rows of float32 logits, of which `index` may choose some, into the first `rows` rows of `out`, of `type`. With all
// rows in order `out` may be the logits' own memory.
extern "C" int aepo_narrowed_gradient(int type, const float* logits, void* out, int64_t rows, int64_t columns,
                                      int64_t row_stride, int64_t out_stride, const int64_t* index,
                                      const int64_t* label, const float* temperature, const float* log_mass,
                                      const float* log_mass_t, const float* entropy, const float* by_logp,
                                      const float* by_logp_t, const float* by_entropy, int entropy_tempered, float cap,
                                      void* stream) {
    GradientCall call{rows,     columns,    row_stride, out_stride, index,     label,      temperature,
                      log_mass, log_mass_t, entropy,    by_logp,    by_logp_t, by_entropy, entropy_tempered != 0, cap};
    switch (type) {
        case 0: return run_narrowed_gradient<float>(logits, out, call, stream);
        case 1: return run_narrowed_gradient<bfloat_t>(logits, out, call, stream);
        case 2: return run_narrowed_gradient<half_t>(logits, out, call, stream);
        default: return -1;
    }
}

// Rows of logits to statistics, and to the gradient by them, which may overwrite them. No matrix product.
//
// Letters: n rows that take part, V columns (the vocabulary). One block of THREADS threads sums a row; every thread
// strides over it in vectors of 16 bytes and the threads' sums are joined in a fixed tree, without atomics, so equal
// calls give equal bits. Exponentials are exp2, logits are scaled by log2(e) as they are read, sums are float32.
//
// Without nvcc the file is plain C++, whose threads run one after the other: that is how tests check its arithmetic
// where there is no GPU.

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define BOTH __host__ __device__ __forceinline__
using half_t = __half;
#else
#define BOTH inline
using half_t = _Float16;
#endif

namespace {

constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;
// Below any logit and finite, so that no difference is inf - inf.
constexpr float LOWEST = -1e30f;
constexpr int THREADS = 512;
constexpr int VECTORS_PER_THREAD = 4;

// bfloat16 by its bits: the upper half of a float.
struct bfloat_t {
    uint16_t bits;
};

BOTH float widened(float x) { return x; }
BOTH float widened(half_t x) {
#ifdef __CUDACC__
    return __half2float(x);
#else
    return static_cast<float>(x);
#endif
}
BOTH float widened(bfloat_t x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

BOTH void narrow(float x, float* out) { *out = x; }
BOTH void narrow(float x, half_t* out) {
#ifdef __CUDACC__
    *out = __float2half(x);
#else
    *out = static_cast<half_t>(x);
#endif
}
BOTH void narrow(float x, bfloat_t* out) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    // To the nearest, ties to even; a nan stays one, which rounding could carry into infinity.
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out->bits = is_nan ? 0x7fc0u : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

BOTH float exp2_of(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return std::exp2(x);
#endif
}

// A logit in units of ln 2. fmaxf would hide a nan.
BOTH float scaled(float z) {
    z *= LOG2E;
    return z < LOWEST ? LOWEST : z;
}

struct Asked {
    bool tempered, entropy, entropy_tempered;
};

// Sums over some columns, relative to the largest of their logits: sum 2^x, sum 2^(x / T), sum 2^x x (or of x / T).
struct Sums {
    float top = LOWEST, mass = 0, mass_t = 0, moment = 0;

    BOTH void move(float higher, float inverse_t, Asked asked) {
        float shift = top - higher, scale = exp2_of(shift);
        float shift_t = shift * inverse_t, scale_t = asked.tempered ? exp2_of(shift_t) : 0.0f;
        if (asked.entropy)
            moment = asked.entropy_tempered ? scale_t * (moment + shift_t * mass_t) : scale * (moment + shift * mass);
        mass *= scale;
        mass_t *= scale_t;
        top = higher;
    }

    BOTH void take(const float* z, int count, float inverse_t, Asked asked) {
        float higher = top;
        for (int i = 0; i < count; ++i) higher = fmaxf(higher, z[i]);
        // Most vectors hold no new maximum.
        if (higher > top) move(higher, inverse_t, asked);
        for (int i = 0; i < count; ++i) {
            float x = z[i] - top, e = exp2_of(x);
            mass += e;
            if (asked.entropy && !asked.entropy_tempered) moment += e * x;
            if (asked.tempered) {
                float x_t = x * inverse_t, e_t = exp2_of(x_t);
                mass_t += e_t;
                if (asked.entropy && asked.entropy_tempered) moment += e_t * x_t;
            }
        }
    }

    BOTH void join(Sums other, float inverse_t, Asked asked) {
        float higher = fmaxf(top, other.top);
        move(higher, inverse_t, asked);
        other.move(higher, inverse_t, asked);
        mass += other.mass;
        mass_t += other.mass_t;
        moment += other.moment;
    }
};

// How a row splits into columns before the first whole vector, vectors of 16 bytes, and columns after the last.
template <class T>
struct Split {
    static constexpr int WIDTH = 16 / sizeof(T);
    int64_t head, vectors, tail;

    BOTH Split(const T* row, int64_t columns) {
        int64_t off = (reinterpret_cast<uintptr_t>(row) % 16) / sizeof(T);
        head = off ? WIDTH - off : 0;
        head = head < columns ? head : columns;
        vectors = (columns - head) / WIDTH;
        tail = columns - head - vectors * WIDTH;
    }
};

template <class T>
BOTH void load(const T* from, float* z) {
    T raw[Split<T>::WIDTH];
#ifdef __CUDA_ARCH__
    *reinterpret_cast<uint4*>(raw) = *reinterpret_cast<const uint4*>(from);
#else
    memcpy(raw, from, 16);
#endif
    for (int i = 0; i < Split<T>::WIDTH; ++i) z[i] = scaled(widened(raw[i]));
}

template <class T>
BOTH void store(const float* value, T* to) {
    T raw[Split<T>::WIDTH];
    for (int i = 0; i < Split<T>::WIDTH; ++i) narrow(value[i], raw + i);
#ifdef __CUDA_ARCH__
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<uint4*>(raw);
#else
    memcpy(to, raw, 16);
#endif
}

// What one thread of a row's block sums.
template <class T>
BOTH Sums thread_sums(const T* row, int64_t columns, int thread, float inverse_t, Asked asked) {
    Split<T> split(row, columns);
    Sums sums;
    float z[Split<T>::WIDTH];
    // Fewer columns than threads lie before and after the vectors.
    if (thread < split.head) {
        z[0] = scaled(widened(row[thread]));
        sums.take(z, 1, inverse_t, asked);
    }
    const T* vector = row + split.head;
    for (int64_t i = thread; i < split.vectors; i += THREADS) {
        load(vector + i * Split<T>::WIDTH, z);
        sums.take(z, Split<T>::WIDTH, inverse_t, asked);
    }
    if (thread < split.tail) {
        z[0] = scaled(widened(vector[split.vectors * Split<T>::WIDTH + thread]));
        sums.take(z, 1, inverse_t, asked);
    }
    return sums;
}

struct StatisticsCall {
    int64_t rows, columns, row_stride;
    const int64_t* index;  // Which row of the logits each one is; null for all in order.
    const int64_t* label;
    const float* temperature;
    float* partial;  // (5, rows): top, mass, mass_t, moment, label's logit; natural logarithms.
    Asked asked;

    BOTH int64_t place(int64_t row) const { return (index ? index[row] : row) * row_stride; }
    BOTH float inverse_t(int64_t row) const { return asked.tempered ? 1.0f / temperature[row] : 1.0f; }

    template <class T>
    BOTH void write(int64_t row, Sums sums, const T* logits) const {
        float of_label = widened(logits[place(row) + label[row]]);
        partial[row] = sums.top * LN2;
        partial[rows + row] = sums.mass;
        partial[2 * rows + row] = sums.mass_t;
        partial[3 * rows + row] = sums.moment * LN2;
        partial[4 * rows + row] = of_label < LOWEST ? LOWEST : of_label;
    }
};

struct GradientCall {
    int64_t rows, columns, row_stride, out_stride;
    const int64_t* index;  // Of both the logits' and the gradient's rows.
    const int64_t* label;
    const float *temperature, *log_mass, *log_mass_t, *entropy;
    const float *by_logp, *by_logp_t, *by_entropy;  // Upstream; null where there is none.
    bool entropy_tempered;

    BOTH int64_t row_of(int64_t row) const { return index ? index[row] : row; }
};

// dz = (g1 + gT / T) [v = y] - p (g1 + gH (ln p + H)) - pT gT / T, or with the entropy's term in pT's bracket.
struct RowGradient {
    float inverse_t = 1, log2_mass = 0, log2_mass_t = 0, at_label = 0;
    // -p (constant + slope log2 p), and the same of pT.
    float constant = 0, slope = 0, constant_t = 0, slope_t = 0;
    bool plain = false, tempered = false;

    BOTH RowGradient(const GradientCall& call, int64_t row) {
        float by_entropy = call.by_entropy ? call.by_entropy[row] : 0.0f;
        float of_entropy = call.by_entropy ? call.entropy[row] : 0.0f;
        plain = call.by_logp || (call.by_entropy && !call.entropy_tempered);
        tempered = call.by_logp_t || (call.by_entropy && call.entropy_tempered);
        log2_mass = call.log_mass[row] * LOG2E;
        if (call.by_logp) at_label = constant = call.by_logp[row];
        if (tempered) {
            inverse_t = 1.0f / call.temperature[row];
            log2_mass_t = call.log_mass_t[row] * LOG2E;
        }
        if (call.by_logp_t) {
            constant_t = call.by_logp_t[row] * inverse_t;
            at_label += constant_t;
        }
        if (call.by_entropy && call.entropy_tempered) {
            slope_t = by_entropy * inverse_t * LN2;
            constant_t += by_entropy * inverse_t * of_entropy;
        } else if (call.by_entropy) {
            slope = by_entropy * LN2;
            constant += by_entropy * of_entropy;
        }
    }

    BOTH float at(float z, bool is_label) const {
        float dz = is_label ? at_label : 0.0f;
        if (plain) {
            float x = z - log2_mass;
            dz -= exp2_of(x) * (constant + slope * x);
        }
        if (tempered) {
            float x = z * inverse_t - log2_mass_t;
            dz -= exp2_of(x) * (constant_t + slope_t * x);
        }
        return dz;
    }
};

// What thread `thread` of part `part` of a row writes; logits and out may be one.
template <class T>
BOTH void thread_gradient(const T* logits, T* out, const GradientCall& call, int64_t row, int64_t part, int thread) {
    const T* from = logits + call.row_of(row) * call.row_stride;
    T* to = out + call.row_of(row) * call.out_stride;
    RowGradient gradient(call, row);
    int64_t label = call.label[row];
    Split<T> split(from, call.columns);
    // Both rows are written in vectors only if they are aligned alike.
    bool alike = reinterpret_cast<uintptr_t>(from) % 16 == reinterpret_cast<uintptr_t>(to) % 16;
    constexpr int WIDTH = Split<T>::WIDTH;
    if (part == 0) {
        if (thread < split.head)
            narrow(gradient.at(scaled(widened(from[thread])), thread == label), to + thread);
        int64_t last = split.head + split.vectors * WIDTH + thread;
        if (thread < split.tail) narrow(gradient.at(scaled(widened(from[last])), last == label), to + last);
    }
    for (int j = 0; j < VECTORS_PER_THREAD; ++j) {
        int64_t i = (part * VECTORS_PER_THREAD + j) * THREADS + thread;
        if (i >= split.vectors) return;
        int64_t column = split.head + i * WIDTH;
        float z[WIDTH];
        load(from + column, z);
        for (int k = 0; k < WIDTH; ++k) z[k] = gradient.at(z[k], column + k == label);
        if (alike) {
            store(z, to + column);
        } else {
            for (int k = 0; k < WIDTH; ++k) narrow(z[k], to + column + k);
        }
    }
}

BOTH int64_t parts_of(int64_t columns, int width) {
    int64_t per_part = static_cast<int64_t>(THREADS) * VECTORS_PER_THREAD * width;
    return (columns + per_part - 1) / per_part;
}

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

#endif

}  // namespace

// Types: 0 float32, 1 bfloat16, 2 float16. Both return a cudaError_t, 0 for success, or -1 for an unknown type.

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
                      log_mass, log_mass_t, entropy,    by_logp,    by_logp_t, by_entropy, entropy_tempered != 0};
    switch (type) {
        case 0: return run_gradient<float>(logits, out, call, stream);
        case 1: return run_gradient<bfloat_t>(logits, out, call, stream);
        case 2: return run_gradient<half_t>(logits, out, call, stream);
        default: return -1;
    }
}

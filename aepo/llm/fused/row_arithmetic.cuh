// The arithmetic of row_kernel.cu: what one thread reads, sums and writes of a row, on a GPU or as plain C++.
//
// Exponentials are exp2, logits are scaled by log2(e) as they are read, sums are float32.

#pragma once

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
#ifdef __CUDA_ARCH__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out->bits) : "f"(x));
#else
    uint32_t bits;
    memcpy(&bits, &x, 4);
    // The same by hand: to the nearest, ties to even; a nan stays one, which rounding could carry into infinity.
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out->bits = is_nan ? 0x7fc0u : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
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
        // Where the vocabulary is split, another process may hold the label's column.
        bool here = label[row] >= 0 && label[row] < columns;
        float of_label = here ? widened(logits[place(row) + label[row]]) : 0.0f;
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
    float cap;  // c of logits that were made c tanh(z / c); 0 for none.

    BOTH int64_t row_of(int64_t row) const { return index ? index[row] : row; }
};

// dz = (g1 + gT / T) [v = y] - p (g1 + gH (ln p + H)) - pT gT / T, or with the entropy's term in pT's bracket.
struct RowGradient {
    float inverse_t = 1, log2_mass = 0, log2_mass_t = 0, at_label = 0;
    // -p (constant + slope log2 p), and the same of pT.
    float constant = 0, slope = 0, constant_t = 0, slope_t = 0;
    float inverse_cap = 0;
    bool plain = false, tempered = false;

    BOTH RowGradient(const GradientCall& call, int64_t row) {
        float by_entropy = call.by_entropy ? call.by_entropy[row] : 0.0f;
        float of_entropy = call.by_entropy ? call.entropy[row] : 0.0f;
        plain = call.by_logp || (call.by_entropy && !call.entropy_tempered);
        tempered = call.by_logp_t || (call.by_entropy && call.entropy_tempered);
        log2_mass = call.log_mass[row] * LOG2E;
        if (call.cap != 0.0f) inverse_cap = LN2 / call.cap;
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

    // The slope of a capped logit by the one before: 1 - tanh^2, 1 without a cap.
    BOTH float of_cap(float z) const {
        float capped = z * inverse_cap;
        return 1.0f - capped * capped;
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

// -- the gradient of float32 logits in another type, which may lie over the logits --
//
// All threads of a block take a row together, part after part: every thread reads its columns, all meet, every thread
// writes them. A row of a type no wider than float32 may then begin where its logits do: what a part is written over
// was read with it or before it.

constexpr int READ = 4;
constexpr int READS_PER_PART = 2;
constexpr int64_t PART = static_cast<int64_t>(THREADS) * READ * READS_PER_PART;

BOTH int64_t column_of(int64_t start, int read, int thread) {
    return start + (static_cast<int64_t>(read) * THREADS + thread) * READ;
}

BOTH void read_part(const float* row, int64_t start, int64_t columns, int thread, float (*z)[READ]) {
    bool aligned = reinterpret_cast<uintptr_t>(row) % 16 == 0;
    for (int j = 0; j < READS_PER_PART; ++j) {
        int64_t column = column_of(start, j, thread);
        if (aligned && column + READ <= columns) {
            load(row + column, z[j]);
        } else {
            for (int k = 0; k < READ; ++k) z[j][k] = column + k < columns ? scaled(row[column + k]) : 0.0f;
        }
    }
}

template <class T>
BOTH void write_part(const float (*z)[READ], T* row, int64_t start, int64_t columns, int thread,
                     const RowGradient& gradient, int64_t label) {
    bool aligned = reinterpret_cast<uintptr_t>(row) % (READ * sizeof(T)) == 0;
    for (int j = 0; j < READS_PER_PART; ++j) {
        int64_t column = column_of(start, j, thread);
        alignas(16) T raw[READ];
        for (int k = 0; k < READ; ++k)
            narrow(gradient.at(z[j][k], column + k == label) * gradient.of_cap(z[j][k]), raw + k);
        if (aligned && column + READ <= columns) {
#ifdef __CUDA_ARCH__
            if constexpr (sizeof(T) == 2)
                *reinterpret_cast<uint2*>(row + column) = *reinterpret_cast<uint2*>(raw);
            else
                *reinterpret_cast<uint4*>(row + column) = *reinterpret_cast<uint4*>(raw);
#else
            memcpy(row + column, raw, sizeof raw);
#endif
        } else {
            for (int k = 0; k < READ; ++k)
                if (column + k < columns) memcpy(row + column + k, raw + k, sizeof(T));
        }
    }
}

}  // namespace

// Root mean square norm (Zhang and Sennrich 2019) of rows, on all threads.

#pragma once

#include <cmath>
#include <cstdint>

#include "pool.hpp"

namespace ISA_NAMESPACE {

// Sixteen sums side by side, added up in a fixed order: the same on every instruction set.
inline float sum_of_squares(const float* x, int64_t dim) {
    float sums[16] = {};
    int64_t i = 0;
    for (; i + 16 <= dim; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += x[i + j] * x[i + j];
    for (; i < dim; i++) sums[i % 16] += x[i] * x[i];
    for (int width = 8; width > 0; width /= 2)
        for (int j = 0; j < width; j++) sums[j] += sums[j + width];
    return sums[0];
}

inline void rms_norm_rows(const float* x, const float* weight, int64_t rows, int64_t dim, float eps, float* to) {
    constexpr int64_t WORTH_A_CHUNK = 16384;  // numbers; below, handing out costs more than computing
    const int64_t per_chunk = 1 + WORTH_A_CHUNK / (dim > 0 ? dim : 1);
    llavakit::parallel((rows + per_chunk - 1) / per_chunk, [=](int64_t chunk, int) {
        const int64_t last = (chunk + 1) * per_chunk < rows ? (chunk + 1) * per_chunk : rows;
        for (int64_t row = chunk * per_chunk; row < last; row++) {
            const float* from = x + row * dim;
            const float scale = 1.0f / std::sqrt(sum_of_squares(from, dim) / float(dim) + eps);
            for (int64_t i = 0; i < dim; i++) to[row * dim + i] = from[i] * scale * weight[i];
        }
    });
}

}  // namespace ISA_NAMESPACE

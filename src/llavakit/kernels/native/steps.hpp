// What stands between the matrix products: norms, rotary positions, activations.

#pragma once

#include "lanes.hpp"

namespace ISA_NAMESPACE {

// dim is a multiple of 16 in all of these.

inline void rms_norm(const float* x, const float* weight, int64_t dim, float eps, float* to) {
    Floats squares = all(0.0f);
    for (int64_t i = 0; i < dim; i += LANES) squares = fma(load(x + i), load(x + i), squares);
    const Floats scale = all(1.0f / std::sqrt(sum(squares) / float(dim) + eps));
    for (int64_t i = 0; i < dim; i += LANES) store(to + i, load(x + i) * scale * load(weight + i));
}

inline void layer_norm(const float* x, const float* weight, const float* bias, int64_t dim, float eps, float* to) {
    Floats total = all(0.0f);
    for (int64_t i = 0; i < dim; i += LANES) total = total + load(x + i);
    const Floats mean = all(sum(total) / float(dim));
    Floats squares = all(0.0f);
    for (int64_t i = 0; i < dim; i += LANES) {
        const Floats apart = load(x + i) - mean;
        squares = fma(apart, apart, squares);
    }
    const Floats scale = all(1.0f / std::sqrt(sum(squares) / float(dim) + eps));
    for (int64_t i = 0; i < dim; i += LANES) store(to + i, fma((load(x + i) - mean) * scale, load(weight + i), load(bias + i)));
}

// Turns each pair (i, i + head_dim/2) by its angle, and makes the whole longer by `scale`.
inline void rotate(float* x, const float* cosine, const float* sine, int head_dim, float scale) {
    const int half = head_dim / 2;
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        const Floats first = load(x + i), second = load(x + half + i), c = load(cosine + i), s = load(sine + i);
        store(x + i, (first * c - second * s) * all(scale));
        store(x + half + i, (second * c + first * s) * all(scale));
    }
    for (; i < half; i++) {
        const float first = x[i], second = x[half + i];
        x[i] = (first * cosine[i] - second * sine[i]) * scale;
        x[half + i] = (second * cosine[i] + first * sine[i]) * scale;
    }
}

enum Activation : int { QUICK_GELU, GELU, GELU_TANH };

LANES_INLINE Floats tanh(Floats x) {
    const Floats e = exp(min(x + x, all(40.0f)));
    return (e - all(1.0f)) / (e + all(1.0f));
}

inline void activate(float* x, int64_t count, int activation) {
    if (activation == GELU) {
        for (int64_t i = 0; i < count; i++) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678f));
        return;
    }
    for (int64_t i = 0; i < count; i += LANES) {
        const Floats value = load(x + i);
        if (activation == QUICK_GELU) {
            store(x + i, value / (all(1.0f) + exp(all(-1.702f) * value)));
        } else {
            const Floats inner = all(0.79788456f) * fma(all(0.044715f) * value * value, value, value);
            store(x + i, all(0.5f) * value * (all(1.0f) + tanh(inner)));
        }
    }
}

}  // namespace ISA_NAMESPACE

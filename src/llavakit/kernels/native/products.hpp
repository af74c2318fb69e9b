// What all products with packed weights have in common, however their tiles are computed: the activations, and where
// results go.

#pragma once

#include "codes.hpp"
#include "packed.hpp"

namespace ISA_NAMESPACE {

using llavakit::Kind;
using llavakit::Matrix;
using llavakit::PANEL_ROWS;

constexpr int TILE_PANELS = 2;
constexpr int PREFETCH_BYTES = 4096;

// Activations for one matrix or several of equal columns and groups: for integer weights as 8 bits in groups.
struct Activations {
    const float* values = nullptr;   // [rows, stride], for weights that are floats
    int64_t stride = 0;
    const int8_t* codes = nullptr;   // [rows, cols], cols a multiple of two groups
    const float* scales = nullptr;   // [rows, groups]
    const int32_t* sums = nullptr;   // [rows, groups], of the codes, times sum_factor() of the weights
    int64_t rows = 0, cols = 0, groups = 0;
    // Whether they lie in tiles, for tall.hpp: codes [rows / 16, cols / 64, 16, 64], the others [rows / 16, groups, 16].
    bool is_tall = false;
};

// Where one row of them is put.
struct RowOf8Bits {
    int8_t* codes;
    int64_t code_step;  // from 64 codes to the next 64
    float* scales;
    int32_t* sums;
    int64_t number_step;  // from one group's scale and sum to those of the next
};

// The sixteen NF4 levels (Dettmers et al. 2023) times 127, as whole numbers above -128.
alignas(16) constexpr uint8_t NF4_LEVELS[16] = {1,   40,  61,  78,  92,  105, 116, 128,
                                                138, 148, 159, 171, 184, 199, 220, 255};

// Codes are unsigned: this times the sum of the activations, added, moves their centre to zero. Where each group has an
// offset of its own, the sum is needed as it is.
constexpr int32_t sum_factor(int kind) { return kind == Kind::INT4 ? -8 : kind == Kind::INT4Z ? 1 : -128; }

// Where a tile's result goes.
struct Output {
    float* to = nullptr;
    int64_t stride = 0;
    enum { PUT, ADD } how = PUT;
};

LANES_INLINE Floats silu(Floats x) { return x / (all(1.0f) + exp(all(0.0f) - x)); }

LANES_INLINE void put_panel(const Output& out, int64_t row, int64_t panel, int64_t rows, Floats x, const float* bias) {
    const int64_t first = panel * PANEL_ROWS;
    float* to = out.to + row * out.stride + first;
    if (first + PANEL_ROWS <= rows) {
        if (bias) x = x + load(bias + first);
        if (out.how == Output::ADD) x = x + load(to);
        store(to, x);
        return;
    }
    float lanes[LANES];
    store(lanes, x);
    for (int64_t i = 0; i < rows - first; i++) {
        const float value = bias ? lanes[i] + bias[first + i] : lanes[i];
        to[i] = out.how == Output::ADD ? to[i] + value : value;
    }
}

// A product with activations, one of several that are done in one go.
//
// Panels are taken in pairs: of different halves of a matrix, or of two matrices. So a thread that does one pair after
// another reads two long stretches of memory from beginning to end, which goes faster than one, and much faster than two
// that break off with every pair.
struct Product {
    const Matrix* weights;
    Output out;
    const Matrix* up = nullptr;  // of the gate that `weights` are, if they are one: the result is silu(gate) * up

    int64_t pairs() const { return up ? weights->panels() : (weights->panels() + 1) / 2; }

    // The last panel of an odd number is a pair with itself.
    bool is_alone(int64_t pair) const { return !up && pair + pairs() >= weights->panels(); }

    const uint8_t* panel(int64_t pair, int which) const {
        if (which == 0 || is_alone(pair)) return weights->panel(pair);
        return up ? up->panel(pair) : weights->panel(pair + pairs());
    }

    // For the lines that `put` will write to.
    LANES_INLINE void call_for(int64_t row, int64_t pair) const {
        const float* to = out.to + row * out.stride + pair * PANEL_ROWS;
        __builtin_prefetch(to, 1);
        if (!up) __builtin_prefetch(to + pairs() * PANEL_ROWS, 1);
    }

    LANES_INLINE void put(int64_t row, int64_t pair, Floats first, Floats second) const {
        if (up) return put_panel(out, row, pair, weights->rows, silu(first) * second, nullptr);
        put_panel(out, row, pair, weights->rows, first, weights->bias);
        if (!is_alone(pair)) put_panel(out, row, pair + pairs(), weights->rows, second, weights->bias);
    }
};

}  // namespace ISA_NAMESPACE

// Matrix products with packed weights: one tile kernel for one row and for a thousand.
//
// A tile is some rows of activations times two panels of weights, summed up over all columns in registers. Integer
// products are exact within a group, and groups are added in order, so a row's result is the same in every tile.
//
// The two panels are of different halves of a matrix, or of two matrices. So a thread that does one tile after another
// reads two long stretches of memory from beginning to end, which goes faster than one, and much faster than two that
// break off with every tile.

#pragma once

#include "codes.hpp"
#include "packed.hpp"
#include "pool.hpp"
#include "rounding.hpp"
#include "tiles.hpp"

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
};

// The sixteen NF4 levels (Dettmers et al. 2023) times 127, as whole numbers above -128.
alignas(16) constexpr uint8_t NF4_LEVELS[16] = {1,   40,  61,  78,  92,  105, 116, 128,
                                                138, 148, 159, 171, 184, 199, 220, 255};

// Codes are unsigned: this times the sum of the activations, added, moves their centre to zero. Where each group has an
// offset of its own, the sum is needed as it is.
constexpr int32_t sum_factor(int kind) { return kind == Kind::INT4 ? -8 : kind == Kind::INT4Z ? 1 : -128; }

// Weights as they are multiplied: of 8 bits, or the low or high halves of bytes.
template <int KIND, int N>
LANES_INLINE auto weights_in(BytesOf<N> bytes, int half) {
    if constexpr (KIND == Kind::INT8)
        return centred(bytes);
    else if constexpr (KIND == Kind::NF4)
        return centred(look_up(half ? high_nibbles(bytes) : low_nibbles(bytes), NF4_LEVELS));
    else
        return half ? high_nibbles(bytes) : low_nibbles(bytes);
}

// Of the lanes of a panel N vectors, from the one at `part` on.
template <int KIND, int GROUP, int M, int N>
LANES_INLINE void integer_tile(const uint8_t* first, const uint8_t* second, int part, const Activations& a, int64_t row,
                               FloatsOf<N> (&total)[M][TILE_PANELS]) {
    constexpr int FOURS = KIND == Kind::INT8 ? 1 : 2, STEP = 4 * FOURS;  // columns in a line of 64 bytes
    constexpr int64_t CODE_BYTES = llavakit::code_bytes(KIND, GROUP), RECORD_BYTES = llavakit::record_bytes(KIND, GROUP);
    constexpr bool SMALL = KIND == Kind::INT4 || KIND == Kind::INT4Z;
    constexpr bool PAIRED = SMALL && IN_PAIRS;
    constexpr int STRETCH = PAIRED ? DOTS_OF_PAIRS * 4 : GROUP;  // columns whose dots are added up at once
    constexpr bool FROM_ZERO = KIND == Kind::INT4Z || (!SMALL && IN_PAIRS);
    const uint8_t* panels[TILE_PANELS] = {first + part * VECTOR_BYTES, second + part * VECTOR_BYTES};
    const int8_t* codes = a.codes + row * a.cols;
    const float* scales = a.scales + row * a.groups;
    const int32_t* sums = a.sums + row * a.groups;

    for (int m = 0; m < M; m++)
        for (int p = 0; p < TILE_PANELS; p++) total[m][p] = all<N>(0.0f);
    for (int64_t group = 0; group < a.groups; group++) {
        const int half = int(group & 1);
        const int64_t record = (group >> 1) * RECORD_BYTES;
        IntsOf<N> products[M][TILE_PANELS];
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            for (int p = 0; p < TILE_PANELS; p++)
                products[m][p] = all_ints<N>(FROM_ZERO ? 0 : sums[m * a.groups + group]);
        for (int stretch = 0; stretch < GROUP; stretch += STRETCH) {
            IntsOf<N> dots[M][TILE_PANELS];
            for (int m = 0; m < M; m++)
                for (int p = 0; p < TILE_PANELS; p++) dots[m][p] = PAIRED ? all_ints<N>(0) : products[m][p];
#pragma GCC unroll 4
            for (int k = stretch; k < stretch + STRETCH; k += STEP) {
                const int64_t line = record + half * CODE_BYTES + k / STEP * 64;
                const int8_t* four = codes + group * GROUP + k;
                BytesOf<N> bytes[TILE_PANELS];
#pragma GCC unroll 2
                for (int p = 0; p < TILE_PANELS; p++) {
                    prefetch(panels[p] + line + PREFETCH_BYTES);
                    bytes[p] = load_bytes<N>(panels[p] + line);
                }
#pragma GCC unroll 2
                for (int which = 0; which < FOURS; which++) {
                    decltype(weights_in<KIND>(bytes[0], 0)) weights[TILE_PANELS];
#pragma GCC unroll 2
                    for (int p = 0; p < TILE_PANELS; p++) weights[p] = weights_in<KIND>(bytes[p], which);
#pragma GCC unroll 8
                    for (int m = 0; m < M; m++) {
                        const BytesOf<N> fours = all_fours<N>(four + m * a.cols + which * 4);
                        for (int p = 0; p < TILE_PANELS; p++)
                            dots[m][p] = add_dots<SMALL>(dots[m][p], weights[p], fours);
                    }
                }
            }
            for (int m = 0; m < M; m++)
                for (int p = 0; p < TILE_PANELS; p++) {
                    if constexpr (PAIRED)
                        products[m][p] = add_pairs(products[m][p], dots[m][p]);
                    else
                        products[m][p] = dots[m][p];
                }
        }
#pragma GCC unroll 2
        for (int p = 0; p < TILE_PANELS; p++) {
            // Lanes are four bytes of codes, and two of scales.
            const uint8_t* scales_at = panels[p] + record + 2 * CODE_BYTES - part * (VECTOR_BYTES / 2);
            const uint16_t* halves = (const uint16_t*)scales_at + half * LANES;
            FloatsOf<N> scale = load_halves<N>(halves);
            if constexpr (KIND == Kind::NF4) scale = scale * all<N>(1.0f / 127.0f);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++)
                total[m][p] = fma(to_floats(products[m][p]), scale * all<N>(scales[m * a.groups + group]), total[m][p]);
            if constexpr (KIND == Kind::INT4Z) {
                const FloatsOf<N> offset = load_halves<N>(halves + 2 * LANES);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) {
                    const float sum = float(sums[m * a.groups + group]) * scales[m * a.groups + group];
                    total[m][p] = fma(offset, all<N>(sum), total[m][p]);
                }
            }
        }
    }
}

template <int KIND, int M, int N>
LANES_INLINE void float_tile(const uint8_t* first, const uint8_t* second, int part, const Activations& a, int64_t row,
                             int64_t cols, FloatsOf<N> (&total)[M][TILE_PANELS]) {
    const int64_t lane = part * (VECTOR_BYTES / 4);
    const uint16_t* panels[TILE_PANELS] = {(const uint16_t*)first + lane, (const uint16_t*)second + lane};
    const float* values = a.values + row * a.stride;
    for (int m = 0; m < M; m++)
        for (int p = 0; p < TILE_PANELS; p++) total[m][p] = all<N>(0.0f);
    for (int64_t k = 0; k < cols; k++) {
#pragma GCC unroll 2
        for (int p = 0; p < TILE_PANELS; p++) {
            const uint16_t* line = panels[p] + k * LANES;
            prefetch(line + PREFETCH_BYTES / 2);
            const FloatsOf<N> weight = KIND == Kind::FLOAT16 ? load_halves<N>(line) : load_bfloats<N>(line);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) total[m][p] = fma(weight, all<N>(values[m * a.stride + k]), total[m][p]);
        }
    }
}

// Where a tile's result goes.
struct Output {
    float* to = nullptr;
    int64_t stride = 0;
    enum { PUT, ADD, GATE } how = PUT;  // GATE: the two panels are gate and up of the same outputs: silu(gate) * up
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

// How many pairs of panels a product has: of a matrix's halves, or of gate and up.
inline int64_t pairs_of(const Matrix& weights, const Output& out) {
    return out.how == Output::GATE ? weights.panels() : (weights.panels() + 1) / 2;
}

template <int KIND, int GROUP, int M>
void tile(const Matrix& weights, const Matrix& other, int64_t pair, const Activations& a, int64_t row, const Output& out) {
    const bool is_gate = out.how == Output::GATE;
    const int64_t in_second_half = pair + pairs_of(weights, out);
    const bool is_alone = !is_gate && in_second_half >= weights.panels();
    const uint8_t* first = weights.panel(pair);
    const uint8_t* second = is_gate ? other.panel(pair) : is_alone ? first : weights.panel(in_second_half);
    Floats total[M][TILE_PANELS];
    constexpr int N = M > WHOLE_ROWS ? 1 : VECTORS;
    for (int part = 0; part < VECTORS; part += N) {
        FloatsOf<N> some[M][TILE_PANELS];
        if constexpr (KIND >= Kind::FLOAT16)
            float_tile<KIND, M, N>(first, second, part, a, row, weights.cols, some);
        else
            integer_tile<KIND, GROUP, M, N>(first, second, part, a, row, some);
        for (int m = 0; m < M; m++)
            for (int p = 0; p < TILE_PANELS; p++) std::memcpy(&total[m][p].part[part], &some[m][p], sizeof some[m][p]);
    }
    for (int m = 0; m < M; m++) {
        if (is_gate) {
            put_panel(out, row + m, pair, weights.rows, silu(total[m][0]) * total[m][1], nullptr);
        } else {
            put_panel(out, row + m, pair, weights.rows, total[m][0], weights.bias);
            if (!is_alone) put_panel(out, row + m, in_second_half, weights.rows, total[m][1], weights.bias);
        }
    }
}

// All rows of activations against a pair of panels, in tiles of nearly equal height.
template <int KIND, int GROUP>
void all_rows(const Matrix& weights, const Matrix& other, int64_t pair, const Activations& a, const Output& out) {
    // Where groups end often, two sets of sums are in use most of the time. A single tile reads the weights once.
    constexpr int64_t OF_MANY = GROUP < 128 && TILE_ROWS > 6 ? 6 : TILE_ROWS;
    const int64_t tallest = a.rows > TILE_ROWS ? OF_MANY : TILE_ROWS;
    const int64_t tiles = (a.rows + tallest - 1) / tallest;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t row = a.rows * i / tiles;
        with_rows<TILE_ROWS>(a.rows * (i + 1) / tiles - row,
                             [&]<int M>() { tile<KIND, GROUP, M>(weights, other, pair, a, row, out); });
    }
}

typedef void (*PairKernel)(const Matrix&, const Matrix&, int64_t, const Activations&, const Output&);

inline PairKernel pair_kernel(const Matrix& weights) {
    const bool wide = weights.group == 128;
    switch (weights.kind) {
        case Kind::INT4: return wide ? all_rows<Kind::INT4, 128> : all_rows<Kind::INT4, 32>;
        case Kind::INT4Z: return wide ? all_rows<Kind::INT4Z, 128> : all_rows<Kind::INT4Z, 32>;
        case Kind::NF4: return wide ? all_rows<Kind::NF4, 128> : all_rows<Kind::NF4, 32>;
        case Kind::INT8: return wide ? all_rows<Kind::INT8, 128> : all_rows<Kind::INT8, 32>;
        case Kind::FLOAT16: return all_rows<Kind::FLOAT16, 32>;
        default: return all_rows<Kind::BFLOAT16, 32>;
    }
}

// One of several products with the same activations, to be done in one go.
struct Product {
    const Matrix* weights;
    Output out;
    const Matrix* up = nullptr;  // for GATE
};

inline void multiply(const Product* products, int count, const Activations& a) {
    if (a.rows == 0) return;
    // Multiplications that are worth a second thread, and a stretch of their own.
    constexpr int64_t WORTH_SHARING = 1 << 20, LEAST_WORK = 1 << 18;
    int64_t pairs = 0;
    for (int i = 0; i < count; i++) pairs += pairs_of(*products[i].weights, products[i].out);
    const int64_t work = TILE_PANELS * PANEL_ROWS * products[0].weights->cols * a.rows;  // of one pair
    const int64_t least = work * pairs < WORTH_SHARING ? pairs : LEAST_WORK / work + 1;
    llavakit::parallel_runs(pairs, least, [&](int64_t begin, int64_t end) {
        for (const Product* product = products; begin < end; product++) {
            const Matrix &weights = *product->weights, &other = product->up ? *product->up : weights;
            const PairKernel kernel = pair_kernel(weights);
            const int64_t here = pairs_of(weights, product->out);
            for (int64_t i = begin; i < std::min(end, here); i++) kernel(weights, other, i, a, product->out);
            begin = std::max<int64_t>(begin - here, 0), end -= here;
        }
    });
}

// One row to 8 bits: each group of columns by its largest magnitude; what fills up the last record is zero.
inline void quantise_row(const Matrix& weights, const float* x, int8_t* codes, float* scales, int32_t* sums) {
    const int64_t cols = weights.cols, padded = weights.padded_cols();
    const int group = weights.group;
    for (int64_t first = 0; first < padded; first += group) {
        float values[128];
        const float* from = x + first;
        if (first + group > cols) {
            const int64_t left = cols > first ? cols - first : 0;
            for (int64_t i = 0; i < group; i++) values[i] = i < left ? from[i] : 0.0f;
            from = values;
        }
        Ints total = all_ints(0);
        scales[first / group] = to_whole<127>(from, group, [&](int i, Ints whole) {
            total = total + whole;
            store_signed_bytes(codes + first + i, whole);
        });
        sums[first / group] = sum_factor(weights.kind) * sum(total);
    }
}

}  // namespace ISA_NAMESPACE

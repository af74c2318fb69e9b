// Matrix products with packed weights: one tile kernel for one row and for a thousand.
//
// A tile is some rows of activations times two panels of weights, summed up over all columns in registers. Integer
// products are exact within a group, and groups are added in order, so a row's result is the same in every tile.

#pragma once

#include "pool.hpp"
#include "products.hpp"
#include "rounding.hpp"
#include "tall.hpp"
#include "tiles.hpp"

namespace ISA_NAMESPACE {

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

template <int KIND, int GROUP, int M>
void tile(const Product& product, int64_t pair, const Activations& a, int64_t row) {
    const uint8_t *first = product.panel(pair, 0), *second = product.panel(pair, 1);
    Floats total[M][TILE_PANELS];
    constexpr int N = M > WHOLE_ROWS ? 1 : VECTORS;
    for (int part = 0; part < VECTORS; part += N) {
        FloatsOf<N> some[M][TILE_PANELS];
        if constexpr (KIND >= Kind::FLOAT16)
            float_tile<KIND, M, N>(first, second, part, a, row, product.weights->cols, some);
        else
            integer_tile<KIND, GROUP, M, N>(first, second, part, a, row, some);
        for (int m = 0; m < M; m++)
            for (int p = 0; p < TILE_PANELS; p++) std::memcpy(&total[m][p].part[part], &some[m][p], sizeof some[m][p]);
    }
    for (int m = 0; m < M; m++) product.put(row + m, pair, total[m][0], total[m][1]);
}

// Some pairs of panels against all rows of activations, in tiles of nearly equal height.
template <int KIND, int GROUP>
void some_pairs(const Product& product, int64_t begin, int64_t end, const Activations& a) {
    // Where groups end often, two sets of sums are in use most of the time. A single tile reads the weights once.
    constexpr int64_t OF_MANY = GROUP < 128 && TILE_ROWS > 6 ? 6 : TILE_ROWS;
    const int64_t tallest = a.rows > TILE_ROWS ? OF_MANY : TILE_ROWS;
    const int64_t tiles = (a.rows + tallest - 1) / tallest;
    for (int64_t pair = begin; pair < end; pair++)
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t row = a.rows * i / tiles;
            with_rows<TILE_ROWS>(a.rows * (i + 1) / tiles - row,
                                 [&]<int M>() { tile<KIND, GROUP, M>(product, pair, a, row); });
        }
}

typedef void (*PairsKernel)(const Product&, int64_t begin, int64_t end, const Activations&);

template <int KIND, int GROUP>
PairsKernel pairs_kernel(bool is_tall) {
    if constexpr (HAS_AMX)
        if (is_tall) return some_tall_pairs<KIND, GROUP>;
    return some_pairs<KIND, GROUP>;
}

inline PairsKernel pairs_kernel(const Matrix& weights, bool is_tall) {
    const bool wide = weights.group == 128;
    switch (weights.kind) {
        case Kind::INT4: return wide ? pairs_kernel<Kind::INT4, 128>(is_tall) : pairs_kernel<Kind::INT4, 32>(is_tall);
        case Kind::INT4Z: return wide ? pairs_kernel<Kind::INT4Z, 128>(is_tall) : pairs_kernel<Kind::INT4Z, 32>(is_tall);
        case Kind::NF4: return wide ? pairs_kernel<Kind::NF4, 128>(is_tall) : pairs_kernel<Kind::NF4, 32>(is_tall);
        case Kind::INT8: return wide ? pairs_kernel<Kind::INT8, 128>(is_tall) : pairs_kernel<Kind::INT8, 32>(is_tall);
        case Kind::FLOAT16: return some_pairs<Kind::FLOAT16, 32>;
        default: return some_pairs<Kind::BFLOAT16, 32>;
    }
}

inline void multiply(const Product* products, int count, const Activations& a) {
    if (a.rows == 0) return;
    // Multiplications that are worth a second thread, and a stretch of their own.
    constexpr int64_t WORTH_SHARING = 1 << 20, LEAST_WORK = 1 << 18;
    int64_t pairs = 0;
    for (int i = 0; i < count; i++) pairs += products[i].pairs();
    const int64_t work = TILE_PANELS * PANEL_ROWS * products[0].weights->cols * a.rows;  // of one pair
    const int64_t least = work * pairs < WORTH_SHARING ? pairs : LEAST_WORK / work + 1;
    llavakit::parallel_runs(pairs, a.is_tall ? std::max(least, TALL_PAIRS) : least, [&](int64_t begin, int64_t end) {
        for (const Product* product = products; begin < end; product++) {
            const int64_t here = product->pairs();
            if (begin < here) pairs_kernel(*product->weights, a.is_tall)(*product, begin, std::min(end, here), a);
            begin = std::max<int64_t>(begin - here, 0), end -= here;
        }
    });
}

// One row to 8 bits: each group of columns by its largest magnitude; what fills up the last record is zero.
inline void quantise_row(const Matrix& weights, const float* x, const RowOf8Bits& to) {
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
        const int64_t number = first / group * to.number_step;
        to.scales[number] = to_whole<127>(from, group, [&](int i, Ints whole) {
            total = total + whole;
            store_signed_bytes(to.codes + (first + i) / 64 * to.code_step + (first + i) % 64, whole);
        });
        to.sums[number] = sum_factor(weights.kind) * sum(total);
    }
}

}  // namespace ISA_NAMESPACE

// Products of many rows, where there are registers for whole tiles: 16 rows times 16 outputs at once.
//
// Weights are taken apart by the first rows that need them, into memory that stays in the second cache; 64 rows times 64
// outputs then go through all groups together, with their sums in the nearest. Integer products are exact within a
// group, and groups are added in order, so a row's result is what every other kernel makes it.

#pragma once

#include <algorithm>

#include "amx.hpp"
#include "pool.hpp"
#include "products.hpp"
#include "tiles.hpp"

namespace ISA_NAMESPACE {

constexpr int64_t LEAST_TALL = HAS_AMX ? TILE_ROWS + 1 : INT64_MAX;  // rows, of which it is the quicker way
constexpr int64_t TALL_PAIRS = 2;  // of panels, that go through all groups together

// Of rows that lie in tiles of 16, one tile behind the other: where a row begins, whose tiles are so many numbers wide.
constexpr int64_t tall_row(int64_t row, int64_t cols, int64_t width) {
    return row / AMX_LINES * AMX_LINES * cols + row % AMX_LINES * width;
}

template <int KIND, int GROUP>
class TallProduct {
    static constexpr int DEPTH = GROUP < 64 ? GROUP : 64;  // columns of a tile
    static constexpr int TALLEST = 3, ROWS = TALLEST * AMX_LINES;  // in one part
    static constexpr int MOST_ROWS = 4 * AMX_LINES;                // that go through all groups together, in two
    // Two sets of sums, rows, and weights.
    static constexpr AmxShape SHAPES[8] = {{}, {}, {}, {}, {}, {}, {AMX_LINES, DEPTH}, {DEPTH / 4, 64}};
    static constexpr int64_t CODE_BYTES = GROUP * PANEL_ROWS;     // of a group of a panel, taken apart
    static constexpr int64_t PANEL_BYTES = CODE_BYTES + 2 * 64;   // with scales and offsets, as floats
    static constexpr int64_t PAIR_BYTES = TILE_PANELS * PANEL_BYTES, GROUP_BYTES = TALL_PAIRS * PAIR_BYTES;
    static constexpr int64_t TOTALS = MOST_ROWS * LANES, SUMS = ROWS * LANES;  // of a panel
    static constexpr int64_t MOST_BYTES = int64_t(1) << 20;       // of weights taken apart: half of a second cache

   public:
    TallProduct(const Product& product, const Activations& a) : product_(product), a_(a), tiles_(SHAPES) {}

    void run(int64_t begin, int64_t end) {
        const int64_t bytes = groups_kept() * GROUP_BYTES;
        const int64_t most = is_read_once() ? TALL_PAIRS : std::max<int64_t>(1, MOST_BYTES / bytes) * TALL_PAIRS;
        for (; begin < end; begin += most) some(begin, std::min(end, begin + most), bytes);
    }

   private:
    // Weights that no other rows will need: a group is forgotten when the next but one comes.
    bool is_read_once() const { return a_.rows <= MOST_ROWS; }
    int64_t groups_kept() const { return is_read_once() ? 2 : a_.groups; }

    void some(int64_t begin, int64_t end, int64_t bytes) {
        const int64_t stretches = (end - begin + TALL_PAIRS - 1) / TALL_PAIRS;
        const int64_t totals = TALL_PAIRS * TILE_PANELS * TOTALS;
        uint8_t* memory = llavakit::scratch(stretches * bytes + (totals + 2 * SUMS) * sizeof(float));
        totals_ = (float*)(memory + stretches * bytes);
        sums_ = (int32_t*)(totals_ + totals);
        for (int64_t row = 0; row < a_.rows; row += rows_) {
            const int64_t left = a_.rows - row;
            rows_ = left <= MOST_ROWS ? left : ROWS;
            const int64_t tiles = (rows_ + AMX_LINES - 1) / AMX_LINES, parts = tiles > TALLEST ? 2 : 1;
            for (int64_t i = 0; i < stretches; i++) {
                const int64_t pair = begin + i * TALL_PAIRS, pairs = std::min(end - pair, TALL_PAIRS);
                std::fill_n(totals_, totals, 0.0f);
                with_rows<TALLEST>(tiles / parts,
                                   [&]<int R>() { through_groups<R>(row, parts, pair, pairs, memory + i * bytes); });
                put(row, pair, pairs);
            }
        }
    }

    // A group's sums of some rows and a panel: they are made in tiles, put into memory while the next are made, and
    // added to the totals while those after them are. What does not depend on each other is done at once.
    struct Sums {
        int64_t row, group;
        const uint8_t* weights;  // of the panel, taken apart
        float* totals = nullptr;
    };

    // The rows from `row` on, in parts of R tiles.
    template <int R>
    void through_groups(int64_t row, int64_t parts, int64_t pair, int64_t pairs, uint8_t* apart) {
        Sums in_memory, in_tiles;
        const auto weights_of = [&](int64_t group) { return apart + (is_read_once() ? group % 2 : group) * GROUP_BYTES; };
        if (row == 0)
            for (int64_t i = 0; i < pairs; i++) take_apart(pair + i, 0, weights_of(0) + i * PAIR_BYTES);
        for (int64_t group = 0; group < a_.groups; group++) {
            for (int64_t m = rows_ * group / a_.groups; m < rows_ * (group + 1) / a_.groups; m++)
                for (int64_t i = 0; i < pairs; i++) product_.call_for(row + m, pair + i);
            for (int64_t i = 0; i < pairs; i++) {
                const uint8_t* panel = weights_of(group) + i * PAIR_BYTES;
                for (int64_t part = 0; part < parts; part++) {
                    const int64_t above = part * R * AMX_LINES;
                    float* totals = totals_ + i * TILE_PANELS * TOTALS + above * LANES;
                    const Sums first{row + above, group, panel, totals};
                    const Sums second{row + above, group, panel + PANEL_BYTES, totals + TOTALS};
                    make<R, 0>(first, in_memory);
                    make<R, 1>(second, in_tiles);
                    in_memory = first, in_tiles = second;
                }
                if (row == 0 && group + 1 < a_.groups)  // while these are multiplied
                    take_apart(pair + i, group + 1, weights_of(group + 1) + i * PAIR_BYTES);
            }
        }
        for (int m = 0; m < R; m++) add<0>(in_memory, m);
        for_tiles<R>([&]<int M>() { put_tile<1, M>(); });
        for (int m = 0; m < R; m++) add<1>(in_tiles, m);
    }

    // Codes to signed bytes, in the same order; scales and offsets to floats.
    void take_apart(int64_t pair, int64_t group, uint8_t* to) const {
        constexpr int64_t PACKED = llavakit::code_bytes(KIND, GROUP), RECORD = llavakit::record_bytes(KIND, GROUP);
        for (int p = 0; p < TILE_PANELS; p++, to += PANEL_BYTES) {
            const uint8_t* record = product_.panel(pair, p) + group / 2 * RECORD;
            const uint8_t* codes = record + group % 2 * PACKED;
#pragma GCC unroll 4
            for (int64_t at = 0; at < PACKED; at += 64) {
                prefetch(codes + at + PREFETCH_BYTES);
                const Bytes bytes = load_bytes(codes + at);
                if constexpr (KIND == Kind::INT8) {
                    store(to + at, as_signed(bytes));
                } else {
                    store(to + 2 * at, as_signed(low_nibbles(bytes)));
                    store(to + 2 * at + 64, as_signed(high_nibbles(bytes)));
                }
            }
            const uint16_t* scales = (const uint16_t*)(record + 2 * PACKED) + group % 2 * LANES;
            float* numbers = (float*)(to + CODE_BYTES);
            Floats scale = load_halves(scales);
            if constexpr (KIND == Kind::NF4) scale = scale * all(1.0f / 127.0f);
            store(numbers, scale);
            if constexpr (KIND == Kind::INT4Z) store(numbers + LANES, load_halves(scales + 2 * LANES));
        }
    }

    static LANES_INLINE Bytes as_signed(Bytes codes) {
        if constexpr (KIND == Kind::NF4) codes = look_up(codes, NF4_LEVELS);
        constexpr uint8_t CENTRE = KIND == Kind::INT4 ? 8 : KIND == Kind::INT4Z ? 0 : 128;
        FOR_PARTS codes.part[i] -= CENTRE;
        return codes;
    }

    // The sums of R times 16 rows, in the tiles of SET; those before them are in the tiles of the other set, and those
    // before these, of the same one, in memory.
    template <int R, int SET>
    LANES_INLINE void make(const Sums& next, const Sums& in_memory) {
        constexpr int STEPS = GROUP / DEPTH;
        const int64_t column = next.group * GROUP;
        const int8_t* codes = a_.codes + next.row * a_.cols + column / 64 * AMX_BYTES + column % 64;
        for_tiles<R>([&]<int M>() { tiles_.template zero<SET * TALLEST + M>(); });
#pragma GCC unroll 2
        for (int step = 0; step < STEPS; step++) {
            tiles_.template load<7>(next.weights + step * AMX_BYTES);
            for_tiles<R>([&]<int M>() {
                tiles_.template load<6>(codes + M * AMX_LINES * a_.cols + step * AMX_BYTES);
                tiles_.template dot<SET * TALLEST + M, 6, 7>();
                if (step == 0 && (in_memory.totals || SET == 1)) put_tile<1 - SET, M>();
                const int done = step * R + M;
                if (in_memory.totals && done % STEPS == 0) add<SET>(in_memory, done / STEPS);
            });
        }
    }

    template <int SET, int M>
    LANES_INLINE void put_tile() {
        tiles_.template store<SET * TALLEST + M>(sums_ + SET * SUMS + M * AMX_LINES * LANES);
    }

    template <int R, class Work>
    static LANES_INLINE void for_tiles(const Work& work) {
        work.template operator()<0>();
        if constexpr (R > 1) work.template operator()<1>();
        if constexpr (R > 2) work.template operator()<2>();
    }

    // Those of the tile's 16 rows that there are.
    template <int SET>
    LANES_INLINE void add(const Sums& made, int tile) const {
        const int64_t rows = a_.rows - made.row - tile * AMX_LINES;
        if (rows >= AMX_LINES)
            add_rows<SET>(made, tile * AMX_LINES, AMX_LINES);
        else
            add_rows<SET>(made, tile * AMX_LINES, int(rows));
    }

    template <int SET>
    LANES_INLINE void add_rows(const Sums& made, int64_t first, int rows) const {
        const int64_t numbers_at = (made.row + first) * a_.groups + made.group * AMX_LINES;
        const float* scales = a_.scales + numbers_at;
        const int32_t* codes = a_.sums + numbers_at;
        const float* numbers = (const float*)(made.weights + CODE_BYTES);
        const Floats scale = load(numbers), offset = KIND == Kind::INT4Z ? load(numbers + LANES) : scale;
        const int32_t* sums = sums_ + SET * SUMS + first * LANES;
        float* totals = made.totals + first * LANES;
#pragma GCC unroll 16
        for (int m = 0; m < rows; m++) {
            const float mine = scales[m];
            Floats total = fma(to_floats(load(sums + m * LANES)), scale * all(mine), load(totals + m * LANES));
            if constexpr (KIND == Kind::INT4Z) total = fma(offset, all(float(codes[m]) * mine), total);
            store(totals + m * LANES, total);
        }
    }

    void put(int64_t row, int64_t pair, int64_t pairs) const {
        for (int64_t m = 0; m < rows_; m++)
            for (int64_t i = 0; i < pairs; i++) {
                const float* totals = totals_ + i * TILE_PANELS * TOTALS + m * LANES;
                product_.put(row + m, pair + i, load(totals), load(totals + TOTALS));
            }
    }

    const Product& product_;
    const Activations& a_;
    AmxTiles tiles_;
    int64_t rows_ = 0;  // that go through the groups now
    float* totals_;     // [TALL_PAIRS, 2 panels, MOST_ROWS, 16]
    int32_t* sums_;     // [2 sets, ROWS, 16]
};

template <int KIND, int GROUP>
void some_tall_pairs(const Product& product, int64_t begin, int64_t end, const Activations& a) {
    TallProduct<KIND, GROUP>(product, a).run(begin, end);
}

}  // namespace ISA_NAMESPACE

// Keys and values as 8 bits with a scale for each position, and attention to them in whole numbers.
//
// What they are multiplied with becomes two bytes a number, which loses next to nothing beside what they have lost
// themselves: queries by the largest of a head, weights by the largest of a block, together with the values' scales.

#pragma once

#include "codes.hpp"
#include "head_blocks.hpp"
#include "rounding.hpp"

namespace ISA_NAMESPACE {

// Keys [head_dim / 4, 16, 4], a line of positions for each four channels, as 128 and more or less; values
// [4, head_dim, 4], a line of channels for each four positions; then 16 scales of the keys and 16 of the values.
class BytesBlock {
   public:
    BytesBlock(const uint8_t* at, int64_t head_dim)
        : keys_((uint8_t*)at), values_(keys_ + BLOCK * head_dim), scales_((float*)(values_ + BLOCK * head_dim)) {}
    BytesBlock() = default;

    const uint8_t* keys() const { return keys_; }
    const uint8_t* values() const { return values_; }
    Floats key_scales() const { return load(scales_); }
    Floats value_scales() const { return load(scales_ + BLOCK); }

    // The key and the value of one position.
    void put(const float* key, const float* value, int64_t inside, int64_t head_dim) {
        scales_[inside] = to_whole<127>(key, int(head_dim), [&](int d, Ints whole) {
            int8_t codes[LANES];
            store_signed_bytes(codes, whole);
            for (int i = 0; i < LANES; i++) codes[i] ^= -128;
            for (int i = 0; i < LANES; i += 4) std::memcpy(keys_ + (d + i) * BLOCK + inside * 4, codes + i, 4);
        });
        int32_t* fours = (int32_t*)(values_ + inside / 4 * head_dim * 4);
        scales_[BLOCK + inside] = to_whole<127>(value, int(head_dim), [&](int d, Ints whole) {
            store(fours + d, with_byte(load(fours + d), int(inside % 4), whole));
        });
    }

    // How many blocks are scored together.
    template <int M>
    static constexpr int TOGETHER = M == 1 ? 4 : 2;

    // A query is 256 * high + low, times its scale. What values add up to is kept beside them: the rows where it goes in
    // the end are so far apart that the nearest cache may not hold all of them.
    template <int M>
    struct Asked {
        const int8_t *high[M], *low[M];
        float* mixed[M];
        int32_t high_sum[M], low_sum[M];  // times -128: keys are so much too large
        float scale[M];

        Asked(const Queries<M>& queries, int64_t head_dim, float* memory) {
            for (int m = 0; m < M; m++) {
                mixed[m] = memory + m * head_dim;
                int8_t *to_high = (int8_t*)(memory + M * head_dim) + 2 * m * head_dim, *to_low = to_high + head_dim;
                Ints high_total = all_ints(0), low_total = all_ints(0);
                scale[m] = to_whole<127 * 256>(queries.query[m], int(head_dim), [&](int d, Ints whole) {
                    const Ints upper = shifted_right<8>(whole + all_ints(128)), lower = whole - shifted_left<8>(upper);
                    high_total = high_total + upper, low_total = low_total + lower;
                    store_signed_bytes(to_high + d, upper);
                    store_signed_bytes(to_low + d, lower);
                });
                high[m] = to_high, low[m] = to_low;
                high_sum[m] = -128 * sum(high_total), low_sum[m] = -128 * sum(low_total);
            }
        }
    };

   private:
    uint8_t *keys_ = nullptr, *values_ = nullptr;
    float* scales_ = nullptr;
};

template <int M, int B>
LANES_INLINE void score_blocks(const BytesBlock::Asked<M>& asked, const Reading<BytesBlock>& reading, int64_t first,
                               Floats (&total)[M][B]) {
    const HeadBlocks<BytesBlock>& blocks = reading.blocks;
    const int64_t bytes = BLOCK * blocks.head_dim;
    const uint8_t *keys[B], *ahead[B];
    for (int b = 0; b < B; b++) {
        keys[b] = blocks[first + b].keys(), ahead[b] = reading.after_keys(first + b);
        prefetch(ahead[b] + 2 * bytes);  // the scales, where these are keys
        prefetch(ahead[b] + 2 * bytes + 64);
    }
    Ints high[M][B], low[M][B];
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) high[m][b] = all_ints(asked.high_sum[m]), low[m][b] = all_ints(asked.low_sum[m]);
    for (int64_t at = 0; at < bytes; at += 64) {
        Bytes key[B];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            prefetch(ahead[b] + at);
            key[b] = load_bytes(keys[b] + at);
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const Bytes upper = all_fours(asked.high[m] + at / BLOCK), lower = all_fours(asked.low[m] + at / BLOCK);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                high[m][b] = dot4<false>(high[m][b], key[b], upper);
                low[m][b] = dot4<false>(low[m][b], key[b], lower);
            }
        }
    }
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++)
            total[m][b] = fma(to_floats(high[m][b]), all(256.0f), to_floats(low[m][b])) *
                          (blocks[first + b].key_scales() * all(asked.scale[m]));
}

// The weights of a block's positions below `count`, times the values' scales, as 128 * upper + lower; returns what these
// are to be multiplied with. They may be put where the weights were.
LANES_INLINE float round_weights(const float* weights, Floats value_scales, int count, int8_t* upper, int8_t* lower) {
    float scaled[LANES];
    store(scaled, keep(load(weights) * value_scales, count, 0.0f));
    return to_whole<127 * 129>(scaled, LANES, [&](int, Ints whole) {
        const Ints high = shifted_right<7>(whole);
        store_signed_bytes(upper, high);
        store_signed_bytes(lower, whole - shifted_left<7>(high));
    });
}

template <int M>
void mix(const BytesBlock::Asked<M>& asked, const Queries<M>& queries, const Reading<BytesBlock>& reading,
         float* const* weights) {
    const HeadBlocks<BytesBlock>& blocks = reading.blocks;
    const int64_t head_dim = blocks.head_dim;
    for (int m = 0; m < M; m++) std::fill_n(asked.mixed[m], head_dim, 0.0f);
    for (int64_t i = 0; i < blocks.count; i++) {
        const BytesBlock block = blocks[i];
        const uint8_t *values = block.values(), *ahead = reading.after_values(i);
        Bytes upper[M][4], lower[M][4];
        Floats scale[M];
        for (int m = 0; m < M; m++) {
            int8_t *high = (int8_t*)(weights[m] + i * BLOCK), *low = high + BLOCK;
            scale[m] = all(round_weights(weights[m] + i * BLOCK, block.value_scales(), queries.seen(m, i), high, low));
            for (int p = 0; p < 4; p++) upper[m][p] = all_fours(high + 4 * p), lower[m][p] = all_fours(low + 4 * p);
        }
        for (int64_t d = 0; d < head_dim; d += LANES) {
            Bytes value[4];
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                prefetch(ahead + (p * head_dim + d) * 4);
                value[p] = load_bytes(values + (p * head_dim + d) * 4);
            }
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                Ints total = all_ints(0);
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++) total = dot4<true>(total, upper[m][p], value[p]);
                total = shifted_left<7>(total);
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++) total = dot4<true>(total, lower[m][p], value[p]);
                float* to = asked.mixed[m] + d;
                store(to, fma(to_floats(total), scale[m], load(to)));
            }
        }
    }
    for (int m = 0; m < M; m++) std::copy_n(asked.mixed[m], head_dim, queries.mixed[m]);
}

}  // namespace ISA_NAMESPACE

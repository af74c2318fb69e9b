// Keys and values as float16, and attention to them in float32.

#pragma once

#include "head_blocks.hpp"

namespace ISA_NAMESPACE {

// Keys [head_dim, 16], a line of positions for each channel, then values [16, head_dim].
class HalvesBlock {
   public:
    HalvesBlock(const uint8_t* at, int64_t head_dim) : keys_((uint16_t*)at), values_(keys_ + BLOCK * head_dim) {}
    HalvesBlock() = default;

    const uint8_t* keys() const { return (const uint8_t*)keys_; }
    const uint8_t* values() const { return (const uint8_t*)values_; }
    Floats key(int64_t d) const { return load_halves(keys_ + d * BLOCK); }
    Floats value(int64_t at) const { return load_halves(values_ + at); }

    // The key and the value of one position.
    void put(const float* key, const float* value, int64_t inside, int64_t head_dim) {
        for (int64_t d = 0; d < head_dim; d += LANES) {
            uint16_t halves[LANES];
            store_halves(halves, load(key + d));
            for (int i = 0; i < LANES; i++) keys_[(d + i) * BLOCK + inside] = halves[i];
            store_halves(values_ + inside * head_dim + d, load(value + d));
        }
    }

    // How many blocks are scored together.
    template <int M>
    static constexpr int TOGETHER = M == 1 ? 8 : 4;

    // Queries are used as they are.
    template <int M>
    struct Asked {
        const Queries<M>& queries;
        Asked(const Queries<M>& queries, int64_t, float*) : queries(queries) {}
    };

   private:
    uint16_t *keys_ = nullptr, *values_ = nullptr;
};

template <int M, int B>
LANES_INLINE void score_blocks(const HalvesBlock::Asked<M>& asked, const Reading<HalvesBlock>& reading, int64_t first,
                               Floats (&total)[M][B]) {
    const HeadBlocks<HalvesBlock>& blocks = reading.blocks;
    HalvesBlock block[B];
    const uint8_t* ahead[B];
    for (int b = 0; b < B; b++) block[b] = blocks[first + b], ahead[b] = reading.after_keys(first + b);
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) total[m][b] = all(0.0f);
    for (int64_t d = 0; d < blocks.head_dim; d++) {
        Floats key[B];
        if (d % 2 == 0)
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) prefetch(ahead[b] + d * 2 * BLOCK);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) key[b] = block[b].key(d);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const Floats query = all(asked.queries.query[m][d]);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) total[m][b] = fma(key[b], query, total[m][b]);
        }
    }
}

template <int M, int C>
LANES_INLINE void mix_channels(const Queries<M>& queries, const Reading<HalvesBlock>& reading, int64_t positions,
                               int64_t channel, float* const* weights) {
    const HeadBlocks<HalvesBlock>& blocks = reading.blocks;
    Floats total[M][C];
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) total[m][c] = all(0.0f);
    for (int64_t first = 0; first < positions; first += BLOCK) {
        const HalvesBlock block = blocks[first / BLOCK];
        const uint8_t* ahead = reading.after_values(first / BLOCK);
        const int count = positions - first < BLOCK ? int(positions - first) : BLOCK;
        for (int i = 0; i < count; i++) {
            const int64_t at = i * blocks.head_dim + channel;
            Floats value[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) {
                if (c % 2 == 0) prefetch(ahead + 2 * (at + c * LANES));
                value[c] = block.value(at + c * LANES);
            }
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                const Floats weight = all(weights[m][first + i]);
#pragma GCC unroll 8
                for (int c = 0; c < C; c++) total[m][c] = fma(value[c], weight, total[m][c]);
            }
        }
    }
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) store(queries.mixed[m] + channel + c * LANES, total[m][c]);
}

template <int M>
void mix(const HalvesBlock::Asked<M>&, const Queries<M>& queries, const Reading<HalvesBlock>& reading,
         float* const* weights) {
    const int64_t positions = *std::max_element(queries.limit, queries.limit + M);
    constexpr int WIDE = M == 1 ? 8 : 4;
    const int64_t head_dim = reading.blocks.head_dim;
    int64_t channel = 0;
    for (; channel + WIDE * LANES <= head_dim; channel += WIDE * LANES)
        mix_channels<M, WIDE>(queries, reading, positions, channel, weights);
    for (; channel < head_dim; channel += LANES) mix_channels<M, 1>(queries, reading, positions, channel, weights);
}

}  // namespace ISA_NAMESPACE

// Softmax attention over keys and values in blocks of 16 positions.
//
// Keys lie transposed, a line of 16 positions for each channel, and values a line of channels for each position, so
// that neither product ever sums across lanes. Every sum runs over channels or positions in ascending order: a query's
// result is the same alone and beside others.

#pragma once

#include "lanes.hpp"
#include "tiles.hpp"

namespace ISA_NAMESPACE {

constexpr int BLOCK = 16;  // positions in a block, as many as there are lanes
constexpr float NOWHERE = -1e30f;

// The keys and values of one head of one sequence: block i at `data + table[i] * stride`. `bias`, where there is any, is
// added to the scores of a block's positions, by the same table.
struct HeadBlocks {
    const uint16_t* data;
    const int32_t* table;
    int64_t stride;
    const float* bias = nullptr;

    const uint16_t* keys(int64_t block) const { return data + table[block] * stride; }
    const uint16_t* values(int64_t block, int head_dim) const { return keys(block) + BLOCK * head_dim; }
};

// Puts the key and the value of one head, at one position, into their block.
LANES_INLINE void remember_head(const float* key, const float* value, uint16_t* block, int64_t position, int64_t head_dim) {
    const int64_t inside = position % BLOCK;
    uint16_t* values = block + BLOCK * head_dim + inside * head_dim;
    for (int64_t d = 0; d < head_dim; d += LANES) {
        uint16_t halves[LANES];
        store_halves(halves, load(key + d));
        for (int i = 0; i < LANES; i++) block[(d + i) * BLOCK + inside] = halves[i];
        store_halves(values + d, load(value + d));
    }
}

// Some queries of one key-value head: each sees the positions below its own `limit`.
template <int M>
struct Queries {
    const float* query[M];
    float* mixed[M];
    int64_t limit[M];
};

template <int M, int B>
LANES_INLINE void score_blocks(const Queries<M>& queries, const HeadBlocks& blocks, int64_t first, int head_dim,
                               float* const* scores) {
    const uint16_t* keys[B];
    Floats total[M][B];
    for (int b = 0; b < B; b++) keys[b] = blocks.keys(first + b);
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) total[m][b] = all(0.0f);
    for (int d = 0; d < head_dim; d++) {
        Floats key[B];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) key[b] = load_halves(keys[b] + d * BLOCK);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const Floats query = all(queries.query[m][d]);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) total[m][b] = fma(key[b], query, total[m][b]);
        }
    }
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) {
            if (blocks.bias)
                total[m][b] = total[m][b] + load(blocks.bias + int64_t(blocks.table[first + b]) * BLOCK);
            const int64_t seen = queries.limit[m] - (first + b) * BLOCK;
            const Floats kept = seen >= BLOCK ? total[m][b] : keep(total[m][b], seen > 0 ? int(seen) : 0, NOWHERE);
            store(scores[m] + (first + b) * BLOCK, kept);
        }
}

// Scores to weights that sum up to 1, over `num_blocks` blocks.
LANES_INLINE void softmax(float* scores, int64_t num_blocks) {
    Floats most = all(NOWHERE);
    for (int64_t i = 0; i < num_blocks; i++) most = max(most, load(scores + i * BLOCK));
    const Floats highest = all(largest(most));
    Floats total = all(0.0f);
    for (int64_t i = 0; i < num_blocks; i++) {
        const Floats weight = exp(load(scores + i * BLOCK) - highest);
        total = total + weight;
        store(scores + i * BLOCK, weight);
    }
    const Floats inverse = all(1.0f / sum(total));
    for (int64_t i = 0; i < num_blocks; i++) store(scores + i * BLOCK, load(scores + i * BLOCK) * inverse);
}

template <int M, int C>
LANES_INLINE void mix_channels(const Queries<M>& queries, const HeadBlocks& blocks, int64_t positions, int head_dim,
                               int channel, float* const* weights) {
    Floats total[M][C];
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) total[m][c] = all(0.0f);
    for (int64_t first = 0; first < positions; first += BLOCK) {
        const uint16_t* values = blocks.values(first / BLOCK, head_dim) + channel;
        const int count = positions - first < BLOCK ? int(positions - first) : BLOCK;
        for (int i = 0; i < count; i++) {
            Floats value[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) value[c] = load_halves(values + i * head_dim + c * LANES);
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

// `scratch`: M times the positions, rounded up to whole blocks.
template <int M>
void attend(const Queries<M>& queries, const HeadBlocks& blocks, int head_dim, float* scratch) {
    int64_t positions = 0;
    for (int m = 0; m < M; m++) positions = queries.limit[m] > positions ? queries.limit[m] : positions;
    const int64_t num_blocks = (positions + BLOCK - 1) / BLOCK;
    float* scores[M];
    for (int m = 0; m < M; m++) scores[m] = scratch + m * num_blocks * BLOCK;

    constexpr int TOGETHER = M == 1 ? 8 : 4;
    int64_t block = 0;
    for (; block + TOGETHER <= num_blocks; block += TOGETHER)
        score_blocks<M, TOGETHER>(queries, blocks, block, head_dim, scores);
    for (; block < num_blocks; block++) score_blocks<M, 1>(queries, blocks, block, head_dim, scores);
    for (int m = 0; m < M; m++) softmax(scores[m], num_blocks);

    constexpr int WIDE = M == 1 ? 8 : 4;
    int channel = 0;
    for (; channel + WIDE * LANES <= head_dim; channel += WIDE * LANES)
        mix_channels<M, WIDE>(queries, blocks, positions, head_dim, channel, scores);
    for (; channel < head_dim; channel += LANES) mix_channels<M, 1>(queries, blocks, positions, head_dim, channel, scores);
}

}  // namespace ISA_NAMESPACE

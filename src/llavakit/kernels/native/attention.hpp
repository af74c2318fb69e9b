// Softmax attention over keys and values in blocks of 16 positions.
//
// Keys lie transposed, a line of 16 positions for each channel, and values a line of channels for each position, so
// that neither product ever sums across lanes. Every sum runs over channels or positions in ascending order: a query's
// result is the same alone and beside others.
//
// Both are kept as float16 or as 8 bits. Of these each position has a scale of its own, so that a block's scales are one
// vector: scores are multiplied with those of the keys, weights with those of the values.

#pragma once

#include "graph.hpp"
#include "lanes.hpp"
#include "rounding.hpp"
#include "tiles.hpp"

namespace ISA_NAMESPACE {

constexpr int BLOCK = 16;  // positions in a block, as many as there are lanes
constexpr float NOWHERE = -1e30f;

// One head's block, kept as float16.
class HalvesBlock {
   public:
    HalvesBlock(const uint8_t* at, int64_t head_dim) : keys_((uint16_t*)at), values_(keys_ + BLOCK * head_dim) {}
    HalvesBlock() = default;

    static constexpr bool HAS_SCALES = false;
    static constexpr int CHANNELS_PER_LINE = 1;  // a line of memory is so much of a block's keys and values

    const void* line(int64_t index) const { return (const uint8_t*)keys_ + index * 64; }
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

   private:
    uint16_t *keys_ = nullptr, *values_ = nullptr;
};

// One head's block, kept as 8 bits.
class BytesBlock {
   public:
    BytesBlock(const uint8_t* at, int64_t head_dim)
        : keys_((int8_t*)at), values_(keys_ + BLOCK * head_dim), scales_((float*)(values_ + BLOCK * head_dim)) {}
    BytesBlock() = default;

    static constexpr bool HAS_SCALES = true;
    static constexpr int CHANNELS_PER_LINE = 2;

    const void* line(int64_t index) const { return (const uint8_t*)keys_ + index * 64; }
    Floats key(int64_t d) const { return load_signed_bytes(keys_ + d * BLOCK); }
    Floats value(int64_t at) const { return load_signed_bytes(values_ + at); }
    Floats key_scales() const { return load(scales_); }
    Floats value_scales() const { return load(scales_ + BLOCK); }

    void put(const float* key, const float* value, int64_t inside, int64_t head_dim) {
        scales_[inside] = to_bytes(key, int(head_dim), [&](int d, Ints whole) {
            int8_t codes[LANES];
            store_signed_bytes(codes, whole);
            for (int i = 0; i < LANES; i++) keys_[(d + i) * BLOCK + inside] = codes[i];
        });
        scales_[BLOCK + inside] = to_bytes(value, int(head_dim), [&](int d, Ints whole) {
            store_signed_bytes(values_ + inside * head_dim + d, whole);
        });
    }

   private:
    int8_t *keys_ = nullptr, *values_ = nullptr;
    float* scales_ = nullptr;
};

// The keys and values of one head of one sequence: block i at `data + table[i] * stride`. `bias`, where there is any, is
// added to the scores of a block's positions, by the same table.
template <class Block>
struct HeadBlocks {
    const uint8_t* data;
    const int32_t* table;
    int64_t stride, head_dim;
    const float* bias = nullptr;

    Block operator[](int64_t block) const { return Block(data + table[block] * stride, head_dim); }
};

// Some queries of one key-value head: each sees the positions below its own `limit`.
template <int M>
struct Queries {
    const float* query[M];
    float* mixed[M];
    int64_t limit[M];
};

template <int M, int B, class Block>
LANES_INLINE void score_blocks(const Queries<M>& queries, const HeadBlocks<Block>& blocks, int64_t first,
                               int64_t num_blocks, float* const* scores) {
    Block block[B], next[B];  // the next ones are called for: each is too short for the processor to foresee
    Floats total[M][B];
    for (int b = 0; b < B; b++) {
        block[b] = blocks[first + b];
        next[b] = blocks[first + B + b < num_blocks ? first + B + b : num_blocks - 1];
    }
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) total[m][b] = all(0.0f);
    for (int64_t d = 0; d < blocks.head_dim; d++) {
        Floats key[B];
        if (d % Block::CHANNELS_PER_LINE == 0)
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) prefetch(next[b].line(d / Block::CHANNELS_PER_LINE));
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) key[b] = block[b].key(d);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const Floats query = all(queries.query[m][d]);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) total[m][b] = fma(key[b], query, total[m][b]);
        }
    }
    for (int m = 0; m < M; m++)
        for (int b = 0; b < B; b++) {
            if constexpr (Block::HAS_SCALES) total[m][b] = total[m][b] * block[b].key_scales();
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

template <int M, int C, class Block>
LANES_INLINE void mix_channels(const Queries<M>& queries, const HeadBlocks<Block>& blocks, int64_t positions,
                               int64_t channel, float* const* weights) {
    Floats total[M][C];
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) total[m][c] = all(0.0f);
    for (int64_t first = 0; first < positions; first += BLOCK) {
        const Block block = blocks[first / BLOCK];
        const int count = positions - first < BLOCK ? int(positions - first) : BLOCK;
        for (int i = 0; i < count; i++) {
            Floats value[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) value[c] = block.value(i * blocks.head_dim + channel + c * LANES);
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

// How much each query attends to each position, over `num_blocks` blocks; the weights of each sum up to 1.
template <int M, class Block>
LANES_INLINE void weigh(const Queries<M>& queries, const HeadBlocks<Block>& blocks, int64_t num_blocks,
                        float* const* weights) {
    constexpr int TOGETHER = M == 1 ? 8 : 4;
    int64_t block = 0;
    for (; block + TOGETHER <= num_blocks; block += TOGETHER) score_blocks<M, TOGETHER>(queries, blocks, block, num_blocks, weights);
    for (; block < num_blocks; block++) score_blocks<M, 1>(queries, blocks, block, num_blocks, weights);
    for (int m = 0; m < M; m++) softmax(weights[m], num_blocks);
}

// `scratch`: M times the positions, rounded up to whole blocks.
template <int M, class Block>
void attend(const Queries<M>& queries, const HeadBlocks<Block>& blocks, float* scratch) {
    int64_t positions = 0;
    for (int m = 0; m < M; m++) positions = queries.limit[m] > positions ? queries.limit[m] : positions;
    const int64_t num_blocks = (positions + BLOCK - 1) / BLOCK;
    float* scores[M];
    for (int m = 0; m < M; m++) scores[m] = scratch + m * num_blocks * BLOCK;

    weigh(queries, blocks, num_blocks, scores);
    if constexpr (Block::HAS_SCALES)
        for (int m = 0; m < M; m++)
            for (int64_t i = 0; i < num_blocks; i++)
                store(scores[m] + i * BLOCK, load(scores[m] + i * BLOCK) * blocks[i].value_scales());

    constexpr int WIDE = M == 1 ? 8 : 4;
    int64_t channel = 0;
    for (; channel + WIDE * LANES <= blocks.head_dim; channel += WIDE * LANES)
        mix_channels<M, WIDE>(queries, blocks, positions, channel, scores);
    for (; channel < blocks.head_dim; channel += LANES) mix_channels<M, 1>(queries, blocks, positions, channel, scores);
}

}  // namespace ISA_NAMESPACE

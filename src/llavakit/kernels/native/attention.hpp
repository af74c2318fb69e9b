// Softmax attention over keys and values in blocks of 16 positions.
//
// Keys lie transposed, in lines of 16 positions, and values in lines of channels, so that neither product ever sums
// across lanes. Every sum runs over channels or positions in ascending order: a query's result is the same alone and
// beside others.

#pragma once

#include "bytes_block.hpp"
#include "halves_block.hpp"
#include "tiles.hpp"

namespace ISA_NAMESPACE {

constexpr float NOWHERE = -1e30f;

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

// A block's scores, with its bias, for a query that sees so many of its positions.
template <class Block>
LANES_INLINE Floats kept(Floats scores, int seen, const HeadBlocks<Block>& blocks, int64_t block) {
    if (blocks.bias) scores = scores + blocks.bias_of(block);
    return seen == BLOCK ? scores : keep(scores, seen, NOWHERE);
}

template <int M, int B, class Block>
LANES_INLINE void keep_scores(const typename Block::template Asked<M>& asked, const Queries<M>& queries,
                              const Reading<Block>& reading, int64_t first, float* const* scores) {
    Floats total[M][B];
    score_blocks<M, B>(asked, reading, first, total);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            const int64_t block = first + b;
            store(scores[m] + block * BLOCK, kept(total[m][b], queries.seen(m, block), reading.blocks, block));
        }
}

// Floats that `attend` works in for each of its queries.
constexpr int64_t scratch_size(int64_t positions, int64_t head_dim) {
    return (positions + BLOCK - 1) / BLOCK * BLOCK + head_dim / 2 + head_dim;
}

// How much each query attends to each position in the blocks; the weights of each sum up to 1.
template <int M, class Block>
LANES_INLINE void weigh(const typename Block::template Asked<M>& asked, const Queries<M>& queries,
                        const Reading<Block>& reading, float* const* weights) {
    constexpr int TOGETHER = Block::template TOGETHER<M>;
    const int64_t num_blocks = reading.blocks.count;
    int64_t block = 0;
    for (; block + TOGETHER <= num_blocks; block += TOGETHER)
        keep_scores<M, TOGETHER, Block>(asked, queries, reading, block, weights);
    for (; block < num_blocks; block++) keep_scores<M, 1, Block>(asked, queries, reading, block, weights);
    for (int m = 0; m < M; m++) softmax(weights[m], num_blocks);
}

// `scratch`: M times `scratch_size` of the positions in the blocks; the weights of the first query come first.
template <int M, class Block>
void attend(const Queries<M>& queries, const Reading<Block>& reading, float* scratch) {
    const int64_t positions = reading.blocks.count * BLOCK;
    float* weights[M];
    for (int m = 0; m < M; m++) weights[m] = scratch + m * positions;
    const typename Block::template Asked<M> asked(queries, reading.blocks.head_dim, scratch + M * positions);
    weigh<M, Block>(asked, queries, reading, weights);
    mix<M>(asked, queries, reading, weights);
}

}  // namespace ISA_NAMESPACE

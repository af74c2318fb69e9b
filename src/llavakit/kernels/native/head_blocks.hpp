// One head's keys and values in blocks of 16 positions, and who asks for them.

#pragma once

#include <algorithm>

#include "lanes.hpp"

namespace ISA_NAMESPACE {

constexpr int BLOCK = 16;  // positions in a block, as many as there are lanes
constexpr int AHEAD = 4;   // blocks of keys or of values that are called for before they are read

// The keys and values of one head of one sequence, `count` blocks: the i-th at `data + table[i] * stride`. `bias`, where
// there is any, is added to the scores of a block's positions, by the same table.
template <class Block>
struct HeadBlocks {
    const uint8_t* data;
    const int32_t* table;
    int64_t stride, head_dim;
    int64_t count;
    const float* bias = nullptr;

    Block operator[](int64_t block) const { return Block(data + table[block] * stride, head_dim); }
    Floats bias_of(int64_t block) const { return load(bias + int64_t(table[block]) * BLOCK); }
};

// The order in which memory is read: the keys of all blocks, the values of all, then what the same thread reads next.
// Each block is too short for the processor to foresee where reading goes on, so it is told.
template <class Block>
struct Reading {
    HeadBlocks<Block> blocks, next;

    const uint8_t* after_keys(int64_t block) const {
        const int64_t there = block + AHEAD, count = blocks.count;
        return there < count ? blocks[there].keys() : blocks[std::min(there - count, count - 1)].values();
    }
    const uint8_t* after_values(int64_t block) const {
        const int64_t there = block + AHEAD, count = blocks.count;
        return there < count ? blocks[there].values() : next[std::min(there - count, next.count - 1)].keys();
    }
};

// Some queries of one key-value head: each sees the positions below its own `limit`.
template <int M>
struct Queries {
    const float* query[M];
    float* mixed[M];
    int64_t limit[M];

    // How many positions of a block the query sees.
    int seen(int m, int64_t block) const { return int(std::clamp<int64_t>(limit[m] - block * BLOCK, 0, BLOCK)); }
};

}  // namespace ISA_NAMESPACE

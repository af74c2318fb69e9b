// The shapes and places that a whole-graph call needs, the same for every instruction set.

#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#include "packed.hpp"

namespace llavakit {

// Memory that grows to what was needed most and is used again by every call.
class Workspace {
   public:
    Workspace() = default;
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace() { std::free(memory_); }

    // Room for `bytes`; what was there before is lost.
    uint8_t* reserve(size_t bytes) {
        if (bytes > size_) {
            std::free(memory_);
            const size_t unit = bytes < HUGE_PAGE / 2 ? 64 : HUGE_PAGE;
            size_ = (bytes + unit - 1) / unit * unit;
            memory_ = static_cast<uint8_t*>(std::aligned_alloc(unit, size_));
            if (!memory_) {
                size_ = 0;
                throw std::bad_alloc();
            }
#ifdef MADV_HUGEPAGE
            // Rows of a result are pages apart: with small pages their addresses are looked up again and again.
            if (unit == HUGE_PAGE) madvise(memory_, size_, MADV_HUGEPAGE);
#endif
        }
        return memory_;
    }

    size_t size() const { return size_; }

   private:
    static constexpr size_t HUGE_PAGE = size_t(2) << 20;

    uint8_t* memory_ = nullptr;
    size_t size_ = 0;
};

// Deals out one reservation piece by piece. Without memory it only counts.
class Deal {
   public:
    explicit Deal(uint8_t* memory = nullptr) : memory_(memory) {}

    template <class T>
    T* take(int64_t count) {
        const size_t at = used_;
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        return memory_ ? reinterpret_cast<T*>(memory_ + at) : nullptr;
    }

    size_t used() const { return used_; }

   private:
    uint8_t* memory_;
    size_t used_ = 0;
};

// What keys and values are kept as. Either way one head's block of 16 positions is the keys, then the values; of bytes,
// 16 scales of the keys and 16 of the values come behind them, as floats.
enum Kept : int { HALVES, BYTES };

constexpr int64_t head_block_bytes(int kept, int64_t head_dim) {
    return kept == HALVES ? 64 * head_dim : 32 * head_dim + 128;
}

struct DecoderLayer {
    const float *input_norm, *post_norm;  // [dim]
    Matrix q, k, v, o, gate, up, down;
};

struct Decoder {
    int64_t dim, heads, kv_heads, head_dim, inner, num_layers;
    float eps;
    const DecoderLayer* layers;
    const float* norm;              // [dim]
    Matrix embedding, head;         // [vocab, dim] both; one and the same where they are tied
    const float *cosine, *sine;     // [positions, head_dim / 2]
};

// A picture among the rows of a step, and how many of them the later layers read.
struct PartlyKept {
    int32_t first, end, kept;
};

// One step: new tokens of several sequences behind one another, sequence s has rows [starts[s], starts[s+1]).
struct Batch {
    int64_t rows, num_sequences;
    const int32_t* starts;      // [num_sequences + 1]
    const int32_t* tokens;      // [rows]; below 0: the next row of `embeds`
    const float* embeds;        // [number of such rows, dim]
    const int32_t* positions;   // [rows], by which queries and keys are turned
    const int32_t* cached;      // [num_sequences], how many tokens of it the cache holds before this step
    const int32_t* tables;      // [num_sequences, table_width] of block numbers
    int64_t table_width;
    uint8_t* cache;             // [layers, blocks, kv_heads, one head's block]
    Kept kept;
    int64_t layer_stride;       // bytes from one layer to the next
    const float* bias;          // [blocks, 16] of every cached position, added to all attention to it; null: nothing is
    const int32_t* wanted;      // [num_wanted] rows whose logits are wanted
    int64_t num_wanted;
    float* logits;              // [num_wanted, vocab]
    double* seconds;            // [NUM_PARTS], to add to; or null
    int64_t drop_after = -1;    // so many layers read all rows, the others of each picture those that stay; or -1
    const int32_t* later_cached = nullptr;  // [num_sequences], `cached` of the layers behind
    const PartlyKept* pictures = nullptr;   // [num_pictures], in the order of their rows
    int64_t num_pictures = 0;
};

struct TowerLayer {
    const float *norm1, *norm1_bias, *norm2, *norm2_bias;  // [dim]
    Matrix q, k, v, out, fc1, fc2;
};

struct Tower {
    int64_t dim, heads, head_dim, inner, num_layers;
    float eps;
    int activation;
    const TowerLayer* layers;
};

}  // namespace llavakit

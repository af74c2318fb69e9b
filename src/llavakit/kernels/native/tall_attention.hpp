// Attention of 16 queries at once to keys and values in bytes, by tiles: what `attend` makes of it, to the last bit.

#pragma once

#include "amx.hpp"
#include "attention.hpp"

namespace ISA_NAMESPACE {

class TallAttention {
   public:
    using Asked = BytesBlock::Asked<AMX_LINES>;

    // `scratch`: so many floats as `scratch_size` says.
    TallAttention(const Queries<AMX_LINES>& queries, const Reading<BytesBlock>& reading, float* scratch)
        : queries_(queries),
          reading_(reading),
          head_dim_(reading.blocks.head_dim),
          num_blocks_(reading.blocks.count),
          depth_(depth_of(head_dim_)),
          weights_(scratch),
          asked_(queries, head_dim_, scratch + AMX_LINES * num_blocks_ * BLOCK),
          sums_((int32_t*)(scratch + AMX_LINES * ISA_NAMESPACE::scratch_size(num_blocks_ * BLOCK, head_dim_))),
          upper_((int8_t*)(sums_ + 2 * AMX_LINES * std::max<int64_t>(head_dim_, 2 * LANES))),
          lower_(upper_ + AMX_LINES * BLOCK),
          tiles_({{}, {}, {}, {}, {AMX_LINES, uint16_t(depth_)}, {uint8_t(depth_ / 4), 64}, {AMX_LINES, BLOCK}, {BLOCK / 4, 64}}) {}

    static constexpr int64_t scratch_size(int64_t positions, int64_t head_dim) {
        return AMX_LINES * (ISA_NAMESPACE::scratch_size(positions, head_dim) + 2 * std::max<int64_t>(head_dim, 2 * LANES) + 8);
    }

    void run() {
        for (int64_t block = 0; block < num_blocks_; block += 2) {
            score<0>(block);
            if (block + 1 < num_blocks_) score<1>(block + 1);
            keep_scores(block);
            if (block + 1 < num_blocks_) keep_scores(block + 1);
        }
        for (int m = 0; m < AMX_LINES; m++) softmax(weights_of(m), num_blocks_);
        for (int m = 0; m < AMX_LINES; m++) std::fill_n(asked_.mixed[m], head_dim_, 0.0f);
        for (int64_t block = 0; block < num_blocks_; block++) mix(block);
        for (int m = 0; m < AMX_LINES; m++) std::copy_n(asked_.mixed[m], head_dim_, queries_.mixed[m]);
    }

   private:
    static constexpr int64_t TILE = AMX_LINES * LANES;  // sums

    // Of a head's channels as many as a tile's lines have bytes for, in equal parts.
    static int64_t depth_of(int64_t head_dim) {
        int64_t parts = (head_dim + 63) / 64;
        while (head_dim % (4 * parts)) parts++;
        return head_dim / parts;
    }

    float* weights_of(int m) const { return weights_ + m * num_blocks_ * BLOCK; }

    // The products of all queries' two bytes with a block's keys, which are 128 too large.
    template <int WHICH>
    void score(int64_t block) {
        constexpr int HIGH = 2 * WHICH, LOW = HIGH + 1;
        const uint8_t *keys = reading_.blocks[block].keys(), *ahead = reading_.after_keys(block);
        for (int64_t at = 0; at < head_dim_ * BLOCK + 128; at += 64) prefetch(ahead + at);
        tiles_.zero<HIGH>();
        tiles_.zero<LOW>();
        for (int64_t d = 0; d < head_dim_; d += depth_) {
            tiles_.load<5>(keys + d * BLOCK);
            tiles_.load<4>(asked_.high[0] + d, 2 * head_dim_);
            tiles_.dot<HIGH, 4, 5, UNSIGNED>();
            tiles_.load<4>(asked_.low[0] + d, 2 * head_dim_);
            tiles_.dot<LOW, 4, 5, UNSIGNED>();
        }
        tiles_.store<HIGH>(sums_ + HIGH * TILE);
        tiles_.store<LOW>(sums_ + LOW * TILE);
    }

    void keep_scores(int64_t block) const {
        const int32_t* sums = sums_ + block % 2 * 2 * TILE;
        const Floats key_scales = reading_.blocks[block].key_scales();
        const int64_t stride = num_blocks_ * BLOCK;
        float* scores = weights_ + block * BLOCK;
        for (int m = 0; m < AMX_LINES; m++, scores += stride) {
            const Ints high = load(sums + m * LANES) + all_ints(asked_.high_sum[m]);
            const Ints low = load(sums + TILE + m * LANES) + all_ints(asked_.low_sum[m]);
            const Floats total = fma(to_floats(high), all(256.0f), to_floats(low)) * (key_scales * all(asked_.scale[m]));
            store(scores, kept(total, queries_.seen(m, block), reading_.blocks, block));
        }
    }

    void mix(int64_t block) {
        const BytesBlock here = reading_.blocks[block];
        const uint8_t *values = here.values(), *ahead = reading_.after_values(block);
        for (int64_t at = 0; at < head_dim_ * BLOCK; at += 64) prefetch(ahead + at);
        const Floats value_scales = here.value_scales();
        float scales[AMX_LINES];
        for (int m = 0; m < AMX_LINES; m++)
            scales[m] = round_weights(weights_of(m) + block * BLOCK, value_scales, queries_.seen(m, block),
                                      upper_ + m * BLOCK, lower_ + m * BLOCK);
        for (int64_t d = 0; d < head_dim_; d += 2 * LANES) {
            mix_channels<0>(values, d);
            if (d + LANES < head_dim_) mix_channels<1>(values, d + LANES);
        }
        const int64_t head_dim = head_dim_;
        for (int m = 0; m < AMX_LINES; m++) {
            const int32_t* sums = sums_ + m * LANES;
            float* mixed = asked_.mixed[m];
            const Floats scale = all(scales[m]);
#pragma GCC unroll 4
            for (int64_t d = 0; d < head_dim; d += LANES, sums += 2 * TILE) {
                const Ints total = shifted_left<7>(load(sums)) + load(sums + TILE);
                store(mixed + d, fma(to_floats(total), scale, load(mixed + d)));
            }
        }
    }

    template <int WHICH>
    void mix_channels(const uint8_t* values, int64_t d) {
        constexpr int UPPER = 2 * WHICH, LOWER = UPPER + 1;
        int32_t* sums = sums_ + d / LANES * 2 * TILE;
        tiles_.zero<UPPER>();
        tiles_.zero<LOWER>();
        tiles_.load<7>(values + d * 4, head_dim_ * 4);
        tiles_.load<6>(upper_, BLOCK);
        tiles_.dot<UPPER, 6, 7>();
        tiles_.load<6>(lower_, BLOCK);
        tiles_.dot<LOWER, 6, 7>();
        tiles_.store<UPPER>(sums);
        tiles_.store<LOWER>(sums + TILE);
    }

    const Queries<AMX_LINES>& queries_;
    const Reading<BytesBlock>& reading_;
    const int64_t head_dim_, num_blocks_, depth_;
    float* weights_;  // [16, num_blocks, 16]
    const Asked asked_;
    int32_t* sums_;            // [head_dim / 16, 2, 16, 16], and at first [2 blocks, 2, 16, 16]
    int8_t *upper_, *lower_;  // [16, 16] weights of a block
    AmxTiles tiles_;
};

}  // namespace ISA_NAMESPACE

// The layers of a vision tower as one call, after its patches have been embedded.

#pragma once

#include <algorithm>

#include "activations.hpp"
#include "attention.hpp"
#include "graph.hpp"
#include "steps.hpp"

namespace ISA_NAMESPACE {

using llavakit::Tower;
using llavakit::TowerLayer;
using llavakit::Workspace;

class TowerRun {
   public:
    TowerRun(const Tower& tower, float* x, int64_t views, int64_t seq, float* looks, Deal deal)
        : tower_(tower),
          x_(x),
          looks_(looks),
          views_(views),
          seq_(seq),
          rows_(views * seq),
          blocks_((seq + BLOCK - 1) / BLOCK),
          normed_(deal.take<float>(threads() * tower.dim)),
          queries_(deal.take<float>(rows_ * tower.dim)),
          keys_(deal.take<float>(rows_ * tower.dim)),
          values_(deal.take<float>(rows_ * tower.dim)),
          inner_(deal.take<float>(rows_ * tower.inner)),
          scores_(deal.take<float>(threads() * TILE_QUERIES * scratch_size(seq, tower.head_dim))),
          cache_(deal.take<uint8_t>(views * tower.heads * head_stride())),
          table_(deal.take<int32_t>(blocks_)),
          attention_in_(deal, rows_, tower.layers[0].q),
          attention_out_(deal, rows_, tower.layers[0].out),
          mlp_in_(deal, rows_, tower.layers[0].fc1),
          mlp_out_(deal, rows_, tower.layers[0].fc2),
          used_(deal.used()) {}

    size_t bytes() const { return used_; }

    void run() {
        for (int64_t i = 0; i < blocks_; i++) table_[i] = int32_t(i);
        for (int64_t layer = 0; layer < tower_.num_layers; layer++) {
            attention(tower_.layers[layer]);
            mlp(tower_.layers[layer]);
            if (looks_) looks_ += views_ * tower_.heads * seq_;
        }
    }

   private:
    int64_t block_stride() const { return llavakit::head_block_bytes(llavakit::HALVES, tower_.head_dim); }
    int64_t head_stride() const { return blocks_ * block_stride(); }

    void norm_into(Prepared& prepared, const float* weight, const float* bias) {
        over_rows(rows_, tower_.dim, [&](int64_t row) {
            float* normed = normed_ + thread_number() * tower_.dim;
            layer_norm(x_ + row * tower_.dim, weight, bias, tower_.dim, tower_.eps, normed);
            prepared.put(row, normed);
        });
    }

    void attention(const TowerLayer& layer) {
        norm_into(attention_in_, layer.norm1, layer.norm1_bias);
        const Product products[] = {{&layer.q, {queries_, tower_.dim, Output::PUT}},
                                    {&layer.k, {keys_, tower_.dim, Output::PUT}},
                                    {&layer.v, {values_, tower_.dim, Output::PUT}}};
        multiply(products, 3, attention_in_.get(rows_));
        over_rows(views_ * tower_.heads, 3 * seq_ * tower_.head_dim, [&](int64_t head) { remember(head); });
        const int64_t tiles = (seq_ + TILE_QUERIES - 1) / TILE_QUERIES;
        parallel(views_ * tower_.heads * tiles, [&](int64_t job, int) {
            const int64_t head = job / tiles, tile = job % tiles;  // head: of all views
            const int64_t first = tile * TILE_QUERIES;
            with_rows<TILE_QUERIES>(std::min<int64_t>(seq_ - first, TILE_QUERIES),
                                    [&]<int M>() { attend_some<M>(head / tower_.heads, head % tower_.heads, first); });
        });
        over_rows(rows_, tower_.dim, [&](int64_t row) { attention_out_.put(row, queries_ + row * tower_.dim); });
        const Product product{&layer.out, {x_, tower_.dim, Output::ADD}};
        multiply(&product, 1, attention_out_.get(rows_));
    }

    // One head of one view, counted through all views.
    void remember(int64_t head) {
        const int64_t head_dim = tower_.head_dim;
        const Floats shorter = all(1.0f / std::sqrt(float(head_dim)));
        for (int64_t position = 0; position < seq_; position++) {
            const int64_t row = head / tower_.heads * seq_ + position;
            const int64_t at = row * tower_.dim + head % tower_.heads * head_dim;
            uint8_t* block = cache_ + head * head_stride() + position / BLOCK * block_stride();
            HalvesBlock(block, head_dim).put(keys_ + at, values_ + at, position % BLOCK, head_dim);
            for (int64_t d = 0; d < head_dim; d += LANES) store(queries_ + at + d, load(queries_ + at + d) * shorter);
        }
    }

    template <int M>
    void attend_some(int64_t view, int64_t head, int64_t first) {
        Queries<M> queries;
        for (int m = 0; m < M; m++) {
            float* at = queries_ + (view * seq_ + first + m) * tower_.dim + head * tower_.head_dim;
            queries.query[m] = at;
            queries.mixed[m] = at;  // a tile has read its queries when it begins to write
            queries.limit[m] = seq_;
        }
        const HeadBlocks<HalvesBlock> blocks{cache_ + (view * tower_.heads + head) * head_stride(), table_,
                                             block_stride(), tower_.head_dim, blocks_};
        float* weights = scores_ + thread_number() * TILE_QUERIES * scratch_size(seq_, tower_.head_dim);
        attend(queries, Reading<HalvesBlock>{blocks, blocks}, weights);
        if (looks_ && first == 0) std::copy_n(weights, seq_, looks_ + (view * tower_.heads + head) * seq_);
    }

    void mlp(const TowerLayer& layer) {
        norm_into(mlp_in_, layer.norm2, layer.norm2_bias);
        const Product wide{&layer.fc1, {inner_, tower_.inner, Output::PUT}};
        multiply(&wide, 1, mlp_in_.get(rows_));
        over_rows(rows_, tower_.inner, [&](int64_t row) {
            activate(inner_ + row * tower_.inner, tower_.inner, tower_.activation);
            mlp_out_.put(row, inner_ + row * tower_.inner);
        });
        const Product product{&layer.fc2, {x_, tower_.dim, Output::ADD}};
        multiply(&product, 1, mlp_out_.get(rows_));
    }

    const Tower& tower_;
    float *x_, *looks_;  // those of the layer that runs
    const int64_t views_, seq_, rows_, blocks_;
    float *normed_, *queries_, *keys_, *values_, *inner_, *scores_;
    uint8_t* cache_;
    int32_t* table_;
    Prepared attention_in_, attention_out_, mlp_in_, mlp_out_;
    const size_t used_;
};

// The hidden states of [views, seq, dim] after all layers, in place; `looks` as in `Kernels`.
inline void tower_run(const Tower& tower, float* x, int64_t views, int64_t seq, float* looks, Workspace& workspace) {
    const size_t bytes = TowerRun(tower, x, views, seq, looks, Deal()).bytes();
    TowerRun(tower, x, views, seq, looks, Deal(workspace.reserve(bytes))).run();
}

}  // namespace ISA_NAMESPACE

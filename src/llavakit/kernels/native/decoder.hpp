// A decoder of the Llama family as one call: tokens of a step in, logits out.

#pragma once

#include <algorithm>

#include "activations.hpp"
#include "attention.hpp"
#include "graph.hpp"
#include "steps.hpp"

namespace ISA_NAMESPACE {

using llavakit::Batch;
using llavakit::Decoder;
using llavakit::DecoderLayer;
using llavakit::Workspace;

// One row of a packed matrix as floats: what an embedding table is asked for.
inline void gather_row(const Matrix& table, int64_t row, float* to) {
    const uint8_t* panel = table.panel(row / PANEL_ROWS);
    const int64_t r = row % PANEL_ROWS;
    if (!table.is_integer()) {
        const uint16_t* values = (const uint16_t*)panel;
        for (int64_t k = 0; k < table.cols; k++) {
            const uint16_t bits = values[k * PANEL_ROWS + r];
            const uint32_t wide = uint32_t(bits) << 16;
            if (table.kind == Kind::FLOAT16)
                to[k] = half_to_float(bits);
            else
                std::memcpy(to + k, &wide, 4);
        }
        return;
    }
    const bool is_wide = table.kind == Kind::INT8;
    const int64_t code_bytes = llavakit::code_bytes(table.kind, table.group);
    const int64_t record_bytes = llavakit::record_bytes(table.kind, table.group);
    for (int64_t k = 0; k < table.cols; k++) {
        const int64_t group = k / table.group, inside = k % table.group;
        const uint8_t* record = panel + group / 2 * record_bytes;
        const uint8_t* codes = record + group % 2 * code_bytes;
        const uint16_t* scales = (const uint16_t*)(record + 2 * code_bytes) + group % 2 * LANES;
        const float scale = half_to_float(scales[r]);
        if (is_wide) {
            to[k] = scale * float(codes[inside / 4 * 64 + r * 4 + inside % 4] - 128);
            continue;
        }
        const uint8_t pair = codes[inside / 8 * 64 + r * 4 + inside % 4];
        const int code = inside % 8 < 4 ? pair & 15 : pair >> 4;
        if (table.kind == Kind::INT4)
            to[k] = scale * float(code - 8);
        else if (table.kind == Kind::NF4)
            to[k] = scale * (1.0f / 127.0f) * float(NF4_LEVELS[code] - 128);
        else
            to[k] = scale * float(code) + half_to_float(scales[r + 2 * LANES]);
    }
}

// What one step of a decoder works in.
class DecoderStep {
   public:
    DecoderStep(const Decoder& decoder, const Batch& batch, Deal deal)
        : decoder_(decoder),
          batch_(batch),
          queries_width_(decoder.heads * decoder.head_dim),
          keys_width_(decoder.kv_heads * decoder.head_dim),
          sharing_(decoder.heads / decoder.kv_heads),
          longest_(batch.table_width * BLOCK),
          x_(deal.take<float>(batch.rows * decoder.dim)),
          normed_(deal.take<float>(threads() * decoder.dim)),
          queries_(deal.take<float>(batch.rows * queries_width_)),
          keys_(deal.take<float>(batch.rows * keys_width_)),
          values_(deal.take<float>(batch.rows * keys_width_)),
          mixed_(deal.take<float>(batch.rows * queries_width_)),
          inner_(deal.take<float>(batch.rows * decoder.inner)),
          scores_(deal.take<float>(threads() * TILE_QUERIES * longest_)),
          attention_in_(deal, batch.rows, decoder.layers[0].q),
          attention_out_(deal, batch.rows, decoder.layers[0].o),
          mlp_in_(deal, batch.rows, decoder.layers[0].gate),
          mlp_out_(deal, batch.rows, decoder.layers[0].down),
          head_in_(deal, batch.num_wanted, decoder.head),
          used_(deal.used()) {}

    size_t bytes() const { return used_; }

    void run() {
        embed();
        for (int64_t layer = 0; layer < decoder_.num_layers; layer++) {
            attention(decoder_.layers[layer], layer);
            mlp(decoder_.layers[layer]);
        }
        logits();
    }

   private:
    void embed() {
        const float* next = batch_.embeds;
        for (int64_t row = 0; row < batch_.rows; row++) {
            float* to = x_ + row * decoder_.dim;
            if (batch_.tokens[row] >= 0) {
                gather_row(decoder_.embedding, batch_.tokens[row], to);
            } else {
                std::memcpy(to, next, decoder_.dim * sizeof(float));
                next += decoder_.dim;
            }
        }
    }

    void norm_into(Prepared& prepared, const float* weight) {
        over_rows(batch_.rows, decoder_.dim, [&](int64_t row) {
            float* normed = normed_ + thread_number() * decoder_.dim;
            rms_norm(x_ + row * decoder_.dim, weight, decoder_.dim, decoder_.eps, normed);
            prepared.put(row, normed);
        });
    }

    void attention(const DecoderLayer& layer, int64_t index) {
        norm_into(attention_in_, layer.input_norm);
        const Product products[] = {{&layer.q, {queries_, queries_width_, Output::PUT}},
                                    {&layer.k, {keys_, keys_width_, Output::PUT}},
                                    {&layer.v, {values_, keys_width_, Output::PUT}}};
        multiply(products, 3, attention_in_.get());
        uint16_t* cache = batch_.cache + index * batch_.layer_stride;
        over_rows(decoder_.kv_heads, batch_.rows * (sharing_ + 2) * decoder_.head_dim,
                  [&](int64_t kv_head) { remember(kv_head, cache); });
        attend_all(cache);
        over_rows(batch_.rows, queries_width_,
                  [&](int64_t row) { attention_out_.put(row, mixed_ + row * queries_width_); });
        const Product product{&layer.o, {x_, decoder_.dim, Output::ADD}};
        multiply(&product, 1, attention_out_.get());
    }

    // Where in its sequence a row stands: positions may leave gaps, the cache does not.
    int64_t place(int64_t sequence, int64_t row) const {
        return batch_.cached[sequence] + row - batch_.starts[sequence];
    }

    int64_t block_stride() const { return 2 * keys_width_ * BLOCK; }

    // Turns the queries and keys of one key-value head by their positions, and puts keys and values into the cache. Head
    // by head, because the keys of neighbouring rows share lines of memory, which no two threads should write.
    void remember(int64_t kv_head, uint16_t* cache) {
        const int64_t head_dim = decoder_.head_dim;
        const float shorter = 1.0f / std::sqrt(float(head_dim));  // of attention, put into the queries
        for (int64_t s = 0; s < batch_.num_sequences; s++) {
            const int32_t* table = batch_.tables + s * batch_.table_width;
            for (int64_t row = batch_.starts[s]; row < batch_.starts[s + 1]; row++) {
                const float* cosine = decoder_.cosine + batch_.positions[row] * head_dim / 2;
                const float* sine = decoder_.sine + batch_.positions[row] * head_dim / 2;
                float* query = queries_ + row * queries_width_ + kv_head * sharing_ * head_dim;
                for (int64_t i = 0; i < sharing_; i++) rotate(query + i * head_dim, cosine, sine, int(head_dim), shorter);
                float* key = keys_ + row * keys_width_ + kv_head * head_dim;
                rotate(key, cosine, sine, int(head_dim), 1.0f);
                const int64_t at = place(s, row);
                uint16_t* block = cache + table[at / BLOCK] * block_stride() + kv_head * 2 * BLOCK * head_dim;
                remember_head(key, values_ + row * keys_width_ + kv_head * head_dim, block, at, head_dim);
            }
        }
    }

    // Queries that share a key-value head are one list, position by position; it is cut into tiles.
    void attend_all(const uint16_t* cache) {
        int64_t tiles = 0, positions = 0;
        for (int64_t s = 0; s < batch_.num_sequences; s++) {
            const int64_t rows = batch_.starts[s + 1] - batch_.starts[s];
            tiles += (rows * sharing_ + TILE_QUERIES - 1) / TILE_QUERIES;
            positions += place(s, batch_.starts[s + 1]);
        }
        const auto one = [&](int64_t job, int) {
            const int64_t head = job / tiles;
            int64_t tile = job % tiles, sequence = 0, queries = 0;
            for (;; sequence++) {
                queries = (batch_.starts[sequence + 1] - batch_.starts[sequence]) * sharing_;
                const int64_t here = (queries + TILE_QUERIES - 1) / TILE_QUERIES;
                if (tile < here) break;
                tile -= here;
            }
            const int64_t first = tile * TILE_QUERIES;
            with_rows<TILE_QUERIES>(std::min<int64_t>(queries - first, TILE_QUERIES),
                                    [&]<int M>() { attend_some<M>(cache, sequence, head, first); });
        };
        if (positions * keys_width_ < WORTH_THREADS)
            for (int64_t job = 0; job < tiles * decoder_.kv_heads; job++) one(job, 0);
        else
            parallel(tiles * decoder_.kv_heads, one);
    }

    template <int M>
    void attend_some(const uint16_t* cache, int64_t sequence, int64_t kv_head, int64_t first) {
        Queries<M> queries;
        for (int m = 0; m < M; m++) {
            const int64_t row = batch_.starts[sequence] + (first + m) / sharing_;
            const int64_t head = kv_head * sharing_ + (first + m) % sharing_;
            queries.query[m] = queries_ + row * queries_width_ + head * decoder_.head_dim;
            queries.mixed[m] = mixed_ + row * queries_width_ + head * decoder_.head_dim;
            queries.limit[m] = place(sequence, row) + 1;
        }
        const HeadBlocks blocks{cache + kv_head * 2 * BLOCK * decoder_.head_dim,
                                batch_.tables + sequence * batch_.table_width, block_stride(), batch_.bias};
        attend<M>(queries, blocks, int(decoder_.head_dim), scores_ + thread_number() * TILE_QUERIES * longest_);
    }

    void mlp(const DecoderLayer& layer) {
        norm_into(mlp_in_, layer.post_norm);
        const Product gated{&layer.gate, {inner_, decoder_.inner, Output::GATE}, &layer.up};
        multiply(&gated, 1, mlp_in_.get());
        over_rows(batch_.rows, decoder_.inner, [&](int64_t row) { mlp_out_.put(row, inner_ + row * decoder_.inner); });
        const Product product{&layer.down, {x_, decoder_.dim, Output::ADD}};
        multiply(&product, 1, mlp_out_.get());
    }

    void logits() {
        if (batch_.num_wanted == 0) return;
        for (int64_t i = 0; i < batch_.num_wanted; i++) {
            rms_norm(x_ + batch_.wanted[i] * decoder_.dim, decoder_.norm, decoder_.dim, decoder_.eps, normed_);
            head_in_.put(i, normed_);
        }
        const Product product{&decoder_.head, {batch_.logits, decoder_.head.rows, Output::PUT}};
        multiply(&product, 1, head_in_.get());
    }

    const Decoder& decoder_;
    const Batch& batch_;
    const int64_t queries_width_, keys_width_;
    const int64_t sharing_;  // heads of queries that share one of keys and values
    const int64_t longest_;
    float *x_, *normed_, *queries_, *keys_, *values_, *mixed_, *inner_, *scores_;
    Prepared attention_in_, attention_out_, mlp_in_, mlp_out_, head_in_;
    const size_t used_;
};

inline void decoder_step(const Decoder& decoder, const Batch& batch, Workspace& workspace) {
    const size_t bytes = DecoderStep(decoder, batch, Deal()).bytes();
    DecoderStep(decoder, batch, Deal(workspace.reserve(bytes))).run();
}

}  // namespace ISA_NAMESPACE

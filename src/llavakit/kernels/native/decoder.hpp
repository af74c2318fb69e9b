// A decoder of the Llama family as one call: tokens of a step in, logits out.

#pragma once

#include <algorithm>

#include "activations.hpp"
#include "attention.hpp"
#include "embedding.hpp"
#include "graph.hpp"
#include "largest.hpp"
#include "steps.hpp"
#include "stopwatch.hpp"
#include "tall_attention.hpp"

namespace ISA_NAMESPACE {

using llavakit::Batch;
using llavakit::Decoder;
using llavakit::DecoderLayer;
using llavakit::Workspace;

// What one step of a decoder works in.
class DecoderStep {
   public:
    DecoderStep(const Decoder& decoder, const Batch& batch, Deal deal)
        : decoder_(decoder),
          batch_(batch),
          watch_(batch.seconds),
          queries_width_(decoder.heads * decoder.head_dim),
          keys_width_(decoder.kv_heads * decoder.head_dim),
          sharing_(decoder.heads / decoder.kv_heads),
          longest_(batch.table_width * BLOCK),
          asking_(deal.take<Asking>(std::max(batch.num_sequences, batch.num_wanted))),
          num_asking_(batch.num_sequences),
          x_(deal.take<float>(batch.rows * decoder.dim)),
          last_(deal.take<float>(batch.num_wanted * decoder.dim)),
          hidden_(x_),
          rows_(batch.rows),
          normed_(deal.take<float>(threads() * decoder.dim)),
          queries_(deal.take<float>(batch.rows * queries_width_)),
          keys_(deal.take<float>(batch.rows * keys_width_)),
          values_(deal.take<float>(batch.rows * keys_width_)),
          mixed_(deal.take<float>(batch.rows * queries_width_)),
          inner_(deal.take<float>(batch.rows * decoder.inner)),
          scores_(deal.take<float>(threads() * scratch())),
          attention_(deal.take<float>(batch.num_pictures ? longest_ : 0)),
          staying_(deal.take<int32_t>(batch.num_pictures ? batch.rows : 0)),
          later_positions_(deal.take<int32_t>(batch.num_pictures ? batch.rows : 0)),
          later_starts_(deal.take<int32_t>(batch.num_pictures ? batch.num_sequences + 1 : 0)),
          later_wanted_(deal.take<int32_t>(batch.num_pictures ? batch.num_wanted : 0)),
          attention_in_(deal, batch.rows, decoder.layers[0].q),
          attention_out_(deal, batch.rows, decoder.layers[0].o),
          mlp_in_(deal, batch.rows, decoder.layers[0].gate),
          mlp_out_(deal, batch.rows, decoder.layers[0].down),
          head_in_(deal, batch.num_wanted, decoder.head),
          used_(deal.used()) {}

    size_t bytes() const { return used_; }

    void run() {
        embed();
        everybody_asks();
        watch_.lap(llavakit::EMBEDDING);
        for (int64_t layer = 0; layer < decoder_.num_layers; layer++) {
            uint8_t* cache = batch_.cache + layer * batch_.layer_stride;
            if (layer == batch_.drop_after) drop(cache - batch_.layer_stride);
            keys_and_values(decoder_.layers[layer], cache);
            if (layer == decoder_.num_layers - 1) only_wanted();
            attention(decoder_.layers[layer], cache);
            mlp(decoder_.layers[layer]);
        }
        logits();
    }

   private:
    void everybody_asks() {
        for (int64_t s = 0; s < batch_.num_sequences; s++) {
            const int64_t first = batch_.starts[s];
            asking_[s] = {s, first, batch_.starts[s + 1] - first, first};
        }
    }

    // From here on the layers do without the rows of pictures that the last row of their sequence attended to least,
    // in the layer before, whose keys are in `cache`.
    void drop(const uint8_t* cache) {
        if (batch_.num_pictures) {
            const int64_t kept = choose(cache);
            for (int64_t i = 0; i < kept; i++) {  // upwards: none is written before it was read
                later_positions_[i] = batch_.positions[staying_[i]];
                std::memmove(x_ + i * decoder_.dim, x_ + staying_[i] * decoder_.dim, decoder_.dim * sizeof(float));
            }
            for (int64_t i = 0; i < batch_.num_wanted; i++)
                later_wanted_[i] = int32_t(std::lower_bound(staying_, staying_ + kept, batch_.wanted[i]) - staying_);
            batch_.starts = later_starts_, batch_.positions = later_positions_, batch_.wanted = later_wanted_;
            batch_.rows = rows_ = kept;
            everybody_asks();
        }
        batch_.cached = batch_.later_cached;
        watch_.lap(llavakit::ATTENTION);
    }

    // How many rows stay: which ones, and where each sequence then begins.
    int64_t choose(const uint8_t* cache) {
        const llavakit::PartlyKept *picture = batch_.pictures, *last = picture + batch_.num_pictures;
        int64_t kept = 0;
        for (int64_t s = 0; s < batch_.num_sequences; s++) {
            const int32_t first = batch_.starts[s], end = batch_.starts[s + 1];
            later_starts_[s] = int32_t(kept);
            if (picture < last && picture->first < end) look(s, cache);
            for (int32_t row = first; row < end;) {
                if (picture == last || row < picture->first) {
                    staying_[kept++] = row++;
                    continue;
                }
                llavakit::largest(attention_ + place(s, row), picture->end - row, picture->kept, staying_ + kept);
                for (int32_t i = 0; i < picture->kept; i++) staying_[kept++] += row;
                row = picture++->end;
            }
        }
        later_starts_[batch_.num_sequences] = int32_t(kept);
        return kept;
    }

    // How much the last row of a sequence attends to each position: the sum over its heads.
    void look(int64_t sequence, const uint8_t* cache) {
        if (batch_.kept == llavakit::HALVES)
            look_at<HalvesBlock>(sequence, cache);
        else
            look_at<BytesBlock>(sequence, cache);
    }

    template <class Block>
    void look_at(int64_t sequence, const uint8_t* cache) {
        const Asking& asking = asking_[sequence];
        const int64_t row = asking.row + asking.count - 1, limit = place(sequence, row) + 1;
        const int64_t positions = (limit + BLOCK - 1) / BLOCK * BLOCK;
        std::fill_n(attention_, positions, 0.0f);
        for (int64_t head = 0; head < decoder_.heads; head++) {
            const Tile last{&asking, head / sharing_, (asking.count - 1) * sharing_ + head % sharing_, 1};
            const HeadBlocks<Block> blocks = blocks_of<Block>(cache, last);
            const Queries<1> query{{queries_ + row * queries_width_ + head * decoder_.head_dim}, {nullptr}, {limit}};
            const typename Block::template Asked<1> asked(query, decoder_.head_dim, scores_ + positions);
            weigh<1, Block>(asked, query, Reading<Block>{blocks, blocks}, &scores_);
            for (int64_t i = 0; i < positions; i += LANES)
                store(attention_ + i, load(attention_ + i) + load(scores_ + i));
        }
    }

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

    // Of the last layer the other rows give keys and values alone.
    void only_wanted() {
        for (int64_t i = 0; i < batch_.num_wanted; i++) {
            const int64_t row = batch_.wanted[i];
            const auto sequence = std::upper_bound(batch_.starts, batch_.starts + batch_.num_sequences, row) - 1;
            asking_[i] = {sequence - batch_.starts, row, 1, i};
            std::memcpy(last_ + i * decoder_.dim, x_ + row * decoder_.dim, decoder_.dim * sizeof(float));
        }
        hidden_ = last_, rows_ = num_asking_ = batch_.num_wanted;
    }

    void norm_into(Prepared& prepared, const float* weight) {
        over_rows(rows_, decoder_.dim, [&](int64_t row) {
            float* normed = normed_ + thread_number() * decoder_.dim;
            rms_norm(hidden_ + row * decoder_.dim, weight, decoder_.dim, decoder_.eps, normed);
            prepared.put(row, normed);
        });
        watch_.lap(llavakit::ROUNDING);
    }

    void keys_and_values(const DecoderLayer& layer, uint8_t* cache) {
        norm_into(attention_in_, layer.input_norm);
        const Product products[] = {{&layer.q, {queries_, queries_width_, Output::PUT}},
                                    {&layer.k, {keys_, keys_width_, Output::PUT}},
                                    {&layer.v, {values_, keys_width_, Output::PUT}}};
        multiply(products, 3, attention_in_.get(rows_));
        watch_.lap(llavakit::QKV);
        over_rows(decoder_.kv_heads, rows_ * (sharing_ + 2) * decoder_.head_dim,
                  [&](int64_t kv_head) { remember(kv_head, cache); });
        watch_.lap(llavakit::CACHE);
    }

    void attention(const DecoderLayer& layer, const uint8_t* cache) {
        attend_all(cache);
        watch_.lap(llavakit::ATTENTION);
        over_rows(rows_, queries_width_, [&](int64_t row) { attention_out_.put(row, mixed_ + row * queries_width_); });
        watch_.lap(llavakit::ROUNDING);
        const Product product{&layer.o, {hidden_, decoder_.dim, Output::ADD}};
        multiply(&product, 1, attention_out_.get(rows_));
        watch_.lap(llavakit::ATTENTION_OUT);
    }

    // Where in its sequence a row stands: positions may leave gaps, the cache does not.
    int64_t place(int64_t sequence, int64_t row) const {
        return batch_.cached[sequence] + row - batch_.starts[sequence];
    }

    int64_t head_bytes() const { return llavakit::head_block_bytes(batch_.kept, decoder_.head_dim); }
    int64_t block_stride() const { return decoder_.kv_heads * head_bytes(); }

    // Turns the queries and keys of one key-value head by their positions, and puts keys and values into the cache. Head
    // by head, because the keys of neighbouring rows share lines of memory, which no two threads should write.
    void remember(int64_t kv_head, uint8_t* cache) {
        constexpr int64_t ROWS_AHEAD = 2;
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
                const float* value = values_ + row * keys_width_ + kv_head * head_dim;
                if (row + ROWS_AHEAD < batch_.starts[s + 1]) {  // too far apart for the processor to foresee them
                    for (int64_t i = 0; i < sharing_ * head_dim; i += LANES) prefetch(query + ROWS_AHEAD * queries_width_ + i);
                    for (int64_t i = 0; i < head_dim; i += LANES) {
                        prefetch(key + ROWS_AHEAD * keys_width_ + i);
                        prefetch(value + ROWS_AHEAD * keys_width_ + i);
                    }
                }
                uint8_t* block = cache + table[at / BLOCK] * block_stride() + kv_head * head_bytes();
                if (batch_.kept == llavakit::HALVES)
                    HalvesBlock(block, head_dim).put(key, value, at % BLOCK, head_dim);
                else
                    BytesBlock(block, head_dim).put(key, value, at % BLOCK, head_dim);
            }
        }
    }

    // Neighbouring rows of one sequence that ask for attention; `to` is the row of the first one's result.
    struct Asking {
        int64_t sequence, row, count, to;
    };

    // Queries that share a key-value head are one list, row by row; it is cut into tiles.
    int64_t tiles_of(const Asking& asking) const {
        return (asking.count * sharing_ + queries_at_once(asking) - 1) / queries_at_once(asking);
    }

    int64_t queries_at_once(const Asking& asking) const {
        const bool is_tall = HAS_AMX && batch_.kept == llavakit::BYTES && asking.count * sharing_ > TILE_QUERIES;
        return is_tall ? AMX_LINES : TILE_QUERIES;
    }

    // Of one thread, in floats.
    int64_t scratch() const {
        if (HAS_AMX) return TallAttention::scratch_size(longest_, decoder_.head_dim);
        return TILE_QUERIES * scratch_size(longest_, decoder_.head_dim);
    }

    void attend_all(const uint8_t* cache) {
        int64_t tiles = 0, positions = 0;
        for (int64_t i = 0; i < num_asking_; i++) {
            tiles += tiles_of(asking_[i]);
            positions += place(asking_[i].sequence, asking_[i].row + asking_[i].count);
        }
        const int64_t jobs = tiles * decoder_.kv_heads;
        const int64_t least = positions * keys_width_ < WORTH_THREADS ? jobs : 1;
        llavakit::parallel_runs(jobs, least, [&](int64_t begin, int64_t end) {
            for (int64_t job = begin; job < end; job++) {
                const Tile tile = tile_of(job, tiles), next = tile_of(std::min(job + 1, jobs - 1), tiles);
                if constexpr (HAS_AMX)
                    if (tile.queries > TILE_QUERIES) {
                        attend_tall(cache, tile, next);
                        continue;
                    }
                with_rows<TILE_QUERIES>(tile.queries, [&]<int M>() {
                    if (batch_.kept == llavakit::HALVES)
                        attend_some<M, HalvesBlock>(cache, tile, next);
                    else
                        attend_some<M, BytesBlock>(cache, tile, next);
                });
            }
        });
    }

    // Queries of one key-value head, from the `first` in its list on.
    struct Tile {
        const Asking* asking;
        int64_t kv_head, first, queries;
    };

    // Head by head, and for each of them all that ask.
    Tile tile_of(int64_t job, int64_t tiles) const {
        int64_t tile = job % tiles;
        const Asking* asking = asking_;
        for (; tile >= tiles_of(*asking); asking++) tile -= tiles_of(*asking);
        const int64_t first = tile * queries_at_once(*asking);
        return {asking, job / tiles, first, std::min(asking->count * sharing_ - first, queries_at_once(*asking))};
    }

    // All that the last query of a tile sees.
    template <class Block>
    HeadBlocks<Block> blocks_of(const uint8_t* cache, const Tile& tile) const {
        const int64_t last = tile.asking->row + (tile.first + tile.queries - 1) / sharing_;
        return {cache + tile.kv_head * head_bytes(), batch_.tables + tile.asking->sequence * batch_.table_width,
                block_stride(), decoder_.head_dim, place(tile.asking->sequence, last) / BLOCK + 1, batch_.bias};
    }

    // M of them; where there are fewer, the last one several times.
    template <int M>
    Queries<M> queries_of(const Tile& tile) const {
        const Asking& asking = *tile.asking;
        Queries<M> queries;
        for (int m = 0; m < M; m++) {
            const int64_t query = tile.first + std::min<int64_t>(m, tile.queries - 1);
            const int64_t row = query / sharing_, head = tile.kv_head * sharing_ + query % sharing_;
            queries.query[m] = queries_ + (asking.row + row) * queries_width_ + head * decoder_.head_dim;
            queries.mixed[m] = mixed_ + (asking.to + row) * queries_width_ + head * decoder_.head_dim;
            queries.limit[m] = place(asking.sequence, asking.row + row) + 1;
        }
        return queries;
    }

    template <class Block>
    Reading<Block> reading_of(const uint8_t* cache, const Tile& tile, const Tile& next) const {
        return {blocks_of<Block>(cache, tile), blocks_of<Block>(cache, next)};
    }

    template <int M, class Block>
    void attend_some(const uint8_t* cache, const Tile& tile, const Tile& next) {
        attend(queries_of<M>(tile), reading_of<Block>(cache, tile, next), scores_ + thread_number() * scratch());
    }

    void attend_tall(const uint8_t* cache, const Tile& tile, const Tile& next) {
        const Queries<AMX_LINES> queries = queries_of<AMX_LINES>(tile);
        const Reading<BytesBlock> reading = reading_of<BytesBlock>(cache, tile, next);
        TallAttention(queries, reading, scores_ + thread_number() * scratch()).run();
    }

    void mlp(const DecoderLayer& layer) {
        norm_into(mlp_in_, layer.post_norm);
        const Product gated{&layer.gate, {inner_, decoder_.inner, Output::PUT}, &layer.up};
        multiply(&gated, 1, mlp_in_.get(rows_));
        watch_.lap(llavakit::GATE_UP);
        over_rows(rows_, decoder_.inner, [&](int64_t row) { mlp_out_.put(row, inner_ + row * decoder_.inner); });
        watch_.lap(llavakit::ROUNDING);
        const Product product{&layer.down, {hidden_, decoder_.dim, Output::ADD}};
        multiply(&product, 1, mlp_out_.get(rows_));
        watch_.lap(llavakit::DOWN);
    }

    void logits() {
        norm_into(head_in_, decoder_.norm);
        const Product product{&decoder_.head, {batch_.logits, decoder_.head.rows, Output::PUT}};
        multiply(&product, 1, head_in_.get(rows_));
        watch_.lap(llavakit::HEAD);
    }

    const Decoder& decoder_;
    Batch batch_;  // behind the layer that drops something, of what stays
    llavakit::Stopwatch watch_;
    const int64_t queries_width_, keys_width_;
    const int64_t sharing_;  // heads of queries that share one of keys and values
    const int64_t longest_;
    Asking* asking_;  // [num_asking_]: at first every sequence with all its rows, in the end each wanted row
    int64_t num_asking_;
    float *x_, *last_;
    float* hidden_;  // [rows_, dim]: x_, in the end last_
    int64_t rows_;
    float *normed_, *queries_, *keys_, *values_, *mixed_, *inner_, *scores_;
    float* attention_;  // [longest_], of one sequence
    int32_t *staying_, *later_positions_, *later_starts_, *later_wanted_;
    Prepared attention_in_, attention_out_, mlp_in_, mlp_out_, head_in_;
    const size_t used_;
};

inline void decoder_step(const Decoder& decoder, const Batch& batch, Workspace& workspace) {
    const size_t bytes = DecoderStep(decoder, batch, Deal()).bytes();
    DecoderStep(decoder, batch, Deal(workspace.reserve(bytes))).run();
}

}  // namespace ISA_NAMESPACE

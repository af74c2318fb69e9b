#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "kernels.hpp"

using namespace llavakit;

namespace {

// Numbers that bfloat16 has, from -1 to 1.
float drawn(int64_t seed) { return float((seed * 2654435761u >> 7) % 257 - 128) / 128; }

// A matrix of such numbers times `size`, as the kernels read it and as it is.
struct Drawn {
    Drawn(int64_t rows, int64_t cols, float size, int64_t seed) : values(size_t(rows * cols)) {
        matrix.rows = rows, matrix.cols = cols, matrix.kind = BFLOAT16;
        data.resize(size_t(matrix.panels() * matrix.panel_bytes() / 2));
        for (int64_t row = 0; row < rows; row++)
            for (int64_t col = 0; col < cols; col++) {
                const float value = values[size_t(row * cols + col)] = size * drawn(seed + row * cols + col);
                uint32_t bits;
                std::memcpy(&bits, &value, 4);
                data[size_t((row / 16 * matrix.padded_cols() + col) * 16 + row % 16)] = uint16_t(bits >> 16);
            }
        matrix.data = (const uint8_t*)data.data();
    }

    std::vector<double> times(const std::vector<double>& x) const {
        std::vector<double> y(size_t(matrix.rows));
        for (size_t i = 0; i < values.size(); i++) y[i / x.size()] += values[i] * x[i % x.size()];
        return y;
    }

    Matrix matrix;
    std::vector<float> values;
    std::vector<uint16_t> data;
};

// A decoder of one layer whose MLP adds nothing and whose positions turn nothing: what it says is its attention.
struct Small {
    Small(int64_t head_dim, int64_t sharing)
        : dim(2 * sharing * head_dim), head_dim(head_dim), sharing(sharing), kept_dim(2 * head_dim),
          embedding(48, dim, 1, 1), q(dim, dim, 0.25f, 2), k(kept_dim, dim, 0.25f, 3), v(kept_dim, dim, 0.25f, 4),
          o(dim, dim, 0.25f, 5), nothing(16, dim, 0, 6), back(dim, 16, 0, 7), ones(size_t(dim), 1.0f),
          cosine(size_t(400 * head_dim / 2), 1.0f), sine(cosine.size(), 0.0f) {
        layer = {ones.data(), ones.data(),    q.matrix,       k.matrix,   v.matrix,
                 o.matrix,    nothing.matrix, nothing.matrix, back.matrix};
        decoder = {.dim = dim, .heads = 2 * sharing, .kv_heads = 2, .head_dim = head_dim, .inner = 16, .num_layers = 1,
                   .eps = 1e-6f, .layers = &layer, .norm = ones.data(), .embedding = embedding.matrix,
                   .head = embedding.matrix, .cosine = cosine.data(), .sine = sine.data()};
    }

    std::vector<double> embedded(int32_t token) const {
        return {embedding.values.begin() + token * dim, embedding.values.begin() + (token + 1) * dim};
    }

    static std::vector<double> normed(std::vector<double> x) {
        double squares = 0;
        for (double value : x) squares += value * value;
        for (double& value : x) value /= std::sqrt(squares / double(x.size()) + 1e-6);
        return x;
    }

    // Each head's numbers of one position as a cache of bytes has them.
    std::vector<double> rounded(std::vector<double> x, Kept kept) const {
        for (auto head = x.begin(); kept == BYTES && head != x.end(); head += head_dim) {
            double most = 0;
            for (int64_t d = 0; d < head_dim; d++) most = std::max(most, std::abs(head[d]));
            for (int64_t d = 0; d < head_dim; d++) head[d] = std::nearbyint(head[d] / most * 127) * most / 127;
        }
        return x;
    }

    // The logits of the last token.
    std::vector<double> expected(const std::vector<int32_t>& tokens, const std::vector<float>& bias, Kept kept) const {
        const std::vector<double> x = embedded(tokens.back()), query = q.times(normed(x));
        std::vector<std::vector<double>> keys, values;
        for (int32_t token : tokens) {
            keys.push_back(rounded(k.times(normed(embedded(token))), kept));
            values.push_back(rounded(v.times(normed(embedded(token))), kept));
        }
        std::vector<double> mixed(size_t(dim), 0.0);
        for (int64_t head = 0; head < 2 * sharing; head++) {
            const int64_t from = head / sharing * head_dim;
            std::vector<double> weights;
            double total = 0;
            for (size_t i = 0; i < tokens.size(); i++) {
                double score = 0;
                for (int64_t d = 0; d < head_dim; d++)
                    score += query[size_t(head * head_dim + d)] * keys[i][size_t(from + d)];
                weights.push_back(std::exp(score / std::sqrt(double(head_dim)) + (bias.empty() ? 0 : bias[i])));
                total += weights.back();
            }
            for (size_t i = 0; i < tokens.size(); i++)
                for (int64_t d = 0; d < head_dim; d++)
                    mixed[size_t(head * head_dim + d)] += weights[i] / total * values[i][size_t(from + d)];
        }
        std::vector<double> out = o.times(mixed);
        for (size_t i = 0; i < out.size(); i++) out[i] += x[i];
        return embedding.times(normed(out));
    }

    const int64_t dim, head_dim, sharing, kept_dim;
    Drawn embedding, q, k, v, o, nothing, back;
    std::vector<float> ones, cosine, sine;
    DecoderLayer layer;
    Decoder decoder;
};

// One sequence, so many tokens in a step: the logits of the last one. Blocks lie in the cache the other way round.
std::vector<float> said(const Small& small, const std::vector<int32_t>& tokens, const std::vector<float>& bias,
                        Kept kept, int64_t at_once) {
    const int64_t count = int64_t(tokens.size()), blocks = (count + 15) / 16;
    const int64_t block_bytes = 2 * head_block_bytes(kept, small.head_dim);
    std::vector<uint8_t> cache(size_t(blocks * block_bytes), 0xff);  // what is there at first is no number
    std::vector<int32_t> table(size_t(blocks), 0), positions;
    for (int64_t i = 0; i < blocks; i++) table[size_t(i)] = int32_t(blocks - 1 - i);
    std::vector<float> all_bias(size_t(16 * blocks), 0.0f), logits(48);
    for (size_t i = 0; i < bias.size(); i++) all_bias[size_t(table[i / 16]) * 16 + i % 16] = bias[i];
    for (int64_t i = 0; i < count; i++) positions.push_back(int32_t(i));
    Workspace workspace;
    for (int64_t done = 0; done < count; done += at_once) {
        const int32_t rows = int32_t(std::min(at_once, count - done)), cached = int32_t(done), wanted = rows - 1;
        const int32_t starts[] = {0, rows};
        kernels().decoder_step(small.decoder,
                               {.rows = rows, .num_sequences = 1, .starts = starts, .tokens = tokens.data() + done,
                                .embeds = nullptr, .positions = positions.data() + done, .cached = &cached,
                                .tables = table.data(), .table_width = blocks, .cache = cache.data(), .kept = kept,
                                .layer_stride = int64_t(cache.size()), .bias = bias.empty() ? nullptr : all_bias.data(),
                                .wanted = &wanted, .num_wanted = 1, .logits = logits.data(), .seconds = nullptr},
                               workspace);
    }
    return logits;
}

void check(int64_t head_dim, int64_t sharing, int64_t count, Kept kept, bool is_biased) {
    const Small small(head_dim, sharing);
    std::vector<int32_t> tokens;
    std::vector<float> bias;
    for (int64_t i = 0; i < count; i++) {
        tokens.push_back(int32_t((i * 7 + 3) % 48));
        if (is_biased) bias.push_back(2 * drawn(i));
    }
    const std::vector<float> found = said(small, tokens, bias, kept, count);
    const std::vector<double> expected = small.expected(tokens, bias, kept);
    double most = 0, apart = 0;
    for (size_t i = 0; i < found.size(); i++) {
        CHECK(std::isfinite(found[i]));
        most = std::max(most, std::abs(expected[i])), apart = std::max(apart, std::abs(found[i] - expected[i]));
    }
    CHECK(apart <= (kept == BYTES ? 1e-4 : 2e-3) * most);  // float16 is not rounded here
    for (const int64_t at_once : {1, 7}) CHECK(said(small, tokens, bias, kept, at_once) == found);  // in other tiles
}

}  // namespace

TEST(attention_to_what_the_cache_keeps) {
    for (const Kept kept : {HALVES, BYTES})
        for (const int64_t head_dim : {16, 48, 128})
            for (const int64_t sharing : {1, 3})
                for (const int64_t count : {1, 16, 33, 150}) check(head_dim, sharing, count, kept, count == 33);
}

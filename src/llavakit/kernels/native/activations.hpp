// Rows of numbers made ready for a product: to 8 bits where the weights are integers.

#pragma once

#include "graph.hpp"
#include "matmul.hpp"

namespace ISA_NAMESPACE {

using llavakit::Deal;

constexpr int64_t WORTH_THREADS = 32768;  // numbers to pass over, below which one thread is quicker

template <class Work>
void over_rows(int64_t rows, int64_t cols, const Work& work) {
    if (rows * cols < WORTH_THREADS) {
        for (int64_t row = 0; row < rows; row++) work(row);
        return;
    }
    const int64_t per_chunk = (WORTH_THREADS / 4 + cols - 1) / cols;
    parallel((rows + per_chunk - 1) / per_chunk, [&](int64_t chunk, int) {
        const int64_t end = (chunk + 1) * per_chunk < rows ? (chunk + 1) * per_chunk : rows;
        for (int64_t row = chunk * per_chunk; row < end; row++) work(row);
    });
}

// Room for the activations of one product, and the numbers themselves once they are `put`.
class Prepared {
   public:
    Prepared(Deal& deal, int64_t rows, const Matrix& weights) : weights_(&weights) {
        activations_.rows = rows;
        activations_.cols = weights.padded_cols();
        if (!weights.is_integer()) {
            activations_.stride = activations_.cols;
            values_ = deal.take<float>(rows * activations_.cols);
            activations_.values = values_;
            return;
        }
        activations_.groups = activations_.cols / weights.group;
        activations_.is_tall = rows >= LEAST_TALL;
        const int64_t whole_tiles = activations_.is_tall ? (rows + AMX_LINES - 1) / AMX_LINES * AMX_LINES : rows;
        codes_ = deal.take<int8_t>(whole_tiles * activations_.cols);
        scales_ = deal.take<float>(whole_tiles * activations_.groups);
        sums_ = deal.take<int32_t>(whole_tiles * activations_.groups);
        activations_.codes = codes_;
        activations_.scales = scales_;
        activations_.sums = sums_;
    }

    void put(int64_t row, const float* x) {
        const Activations& a = activations_;
        if (weights_->is_integer())
            quantise_row(*weights_, x, row_of_8_bits(row));
        else
            std::memcpy(values_ + row * a.stride, x, weights_->cols * sizeof(float));
    }

    // The first so many rows of those put.
    Activations get(int64_t rows) const {
        Activations some = activations_;
        some.rows = rows;
        return some;
    }

   private:
    RowOf8Bits row_of_8_bits(int64_t row) const {
        const int64_t cols = activations_.cols, groups = activations_.groups;
        if (!activations_.is_tall) return {codes_ + row * cols, 64, scales_ + row * groups, sums_ + row * groups, 1};
        const int64_t number = tall_row(row, groups, 1);
        return {codes_ + tall_row(row, cols, 64), AMX_BYTES, scales_ + number, sums_ + number, AMX_LINES};
    }

    const Matrix* weights_;
    Activations activations_;
    float* values_ = nullptr;
    int8_t* codes_ = nullptr;
    float* scales_ = nullptr;
    int32_t* sums_ = nullptr;
};

// Rows of numbers times one matrix, on their own.
inline void matmul(const Matrix& weights, const float* x, int64_t rows, float* to, llavakit::Workspace& workspace) {
    Deal counting;
    Prepared(counting, rows, weights);
    Deal deal(workspace.reserve(counting.used()));
    Prepared prepared(deal, rows, weights);
    over_rows(rows, weights.cols, [&](int64_t row) { prepared.put(row, x + row * weights.cols); });
    const Product product{&weights, {to, weights.rows, Output::PUT}};
    multiply(&product, 1, prepared.get(rows));
}

}  // namespace ISA_NAMESPACE

#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "check.hpp"
#include "kernels.hpp"

using namespace llavakit;

namespace {

// A packed matrix whose every scale is one, and whose code at (row, column) is known. Of exactly the right size, so
// that the sanitizer sees a byte too far.
struct Drawn {
    Drawn(int64_t rows, int64_t cols, Kind kind, int group, std::optional<int> only = {}) : only(only) {
        matrix.rows = rows;
        matrix.cols = cols;
        matrix.kind = kind;
        matrix.group = group;
        const int64_t bytes = matrix.panels() * matrix.panel_bytes();
        data.assign(size_t(bytes), kind == INT8 ? 128 : 0x88);
        matrix.data = data.data();
        const int64_t code_bytes = 2 * group * 16 / (kind == INT8 ? 1 : 2), record = code_bytes + 64;
        for (int64_t at = 0; at < bytes; at += record)
            for (int i = 0; i < 32; i++) {
                const uint16_t one = 0x3c00;
                std::memcpy(&data[size_t(at + code_bytes + 2 * i)], &one, 2);
            }
        for (int64_t row = 0; row < rows; row++)
            for (int64_t col = 0; col < cols; col++) {
                const int64_t inside = col % (2 * group);
                uint8_t* codes = &data[size_t(row / 16 * matrix.panel_bytes() + col / (2 * group) * record)];
                if (kind == INT8) {
                    codes[inside / 4 * 64 + row % 16 * 4 + inside % 4] = uint8_t(128 + value(row, col));
                } else {
                    uint8_t& pair = codes[inside / 8 * 64 + row % 16 * 4 + inside % 4];
                    const uint8_t code = uint8_t(8 + value(row, col));
                    pair = inside % 8 < 4 ? uint8_t((pair & 0xf0) | code) : uint8_t((pair & 0x0f) | code << 4);
                }
            }
    }

    int value(int64_t row, int64_t col) const {
        if (only) return *only;
        const int wide = matrix.kind == INT8 ? 255 : 15;
        return int((row * 31 + col * 17) % wide) - wide / 2;
    }

    const std::optional<int> only;
    Matrix matrix;
    std::vector<uint8_t> data;
};

void check(int64_t m, int64_t rows, int64_t cols, Kind kind, int group) {
    const Drawn drawn(rows, cols, kind, group);
    std::vector<float> x(size_t(m * cols)), to(size_t(m * rows));
    // Whole activations of which each group has one of 127: nothing is rounded.
    for (int64_t i = 0; i < m * cols; i++) x[size_t(i)] = i % cols % group == 0 ? 127.0f : float(i * 7 % 255 - 127);
    Workspace workspace;
    kernels().matmul(drawn.matrix, x.data(), m, to.data(), workspace);
    for (int64_t i = 0; i < m; i++)
        for (int64_t row = 0; row < rows; row++) {
            double sum = 0;
            for (int64_t col = 0; col < cols; col++) sum += double(x[size_t(i * cols + col)]) * drawn.value(row, col);
            CHECK(std::abs(to[size_t(i * rows + row)] - sum) <= 1e-6 * 127 * 127 * double(cols));
        }
}

}  // namespace

// Nothing that is added up on the way is too large for where it is kept.
TEST(products_of_the_largest_numbers) {
    const int64_t rows = 16, cols = 256;
    Workspace workspace;
    for (const Kind kind : {INT4, INT8})
        for (const int group : {32, 128})
            for (const int only : kind == INT4 ? std::vector{-8, 7} : std::vector{-127, 127}) {
                const Drawn drawn(rows, cols, kind, group, only);
                for (const float value : {-127.0f, 127.0f})
                    for (const int64_t m : {1, 2, 3, 8, 17}) {
                        const std::vector<float> x(size_t(m * cols), value);
                        std::vector<float> to(size_t(m * rows));
                        kernels().matmul(drawn.matrix, x.data(), m, to.data(), workspace);
                        for (const float found : to) CHECK(found == value * float(only) * float(cols));
                    }
            }
}

TEST(products_of_whole_numbers) {
    for (const Kind kind : {INT4, INT8})
        for (const int group : {32, 128})
            for (const int64_t m : {1, 2, 6, 7, 19, 50})
                for (const int64_t rows : {1, 16, 33, 80})
                    for (const int64_t cols : {1, 31, 64, 300}) check(m, rows, cols, kind, group);
}

// A packed matrix as it lies in memory and in the file; kernels/packed.py says what each byte is.

#pragma once

#include <cstdint>

namespace llavakit {

constexpr int64_t PANEL_ROWS = 16;

enum Kind : int { INT4, INT4Z, NF4, INT8, FLOAT16, BFLOAT16 };

// Of one group of a panel.
constexpr int64_t code_bytes(int kind, int64_t group) { return group * PANEL_ROWS / (kind == INT8 ? 1 : 2); }

// Of two groups: their codes, their scales and, where there are any, their offsets.
constexpr int64_t record_bytes(int kind, int64_t group) {
    return 2 * code_bytes(kind, group) + 64 + (kind == INT4Z ? 64 : 0);
}

struct Matrix {
    const uint8_t* data = nullptr;
    int64_t rows = 0, cols = 0;
    int kind = INT4, group = 32;
    const float* bias = nullptr;  // [rows], or none

    bool is_integer() const { return kind < FLOAT16; }
    int64_t panels() const { return (rows + PANEL_ROWS - 1) / PANEL_ROWS; }

    // Columns with those that fill up the last record.
    int64_t padded_cols() const {
        const int64_t unit = is_integer() ? 2 * group : 16;
        return (cols + unit - 1) / unit * unit;
    }

    int64_t panel_bytes() const {
        if (!is_integer()) return padded_cols() * PANEL_ROWS * 2;
        return padded_cols() / (2 * group) * record_bytes(kind, group);
    }

    const uint8_t* panel(int64_t index) const { return data + index * panel_bytes(); }
};

}  // namespace llavakit

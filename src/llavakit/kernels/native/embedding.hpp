// Embedding tables as packed matrices.

#pragma once

#include "lanes.hpp"
#include "matmul.hpp"

namespace ISA_NAMESPACE {

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

}  // namespace ISA_NAMESPACE

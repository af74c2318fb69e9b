// How tall a tile is, of activations or of queries: there are registers for so many rows.

#pragma once

#include <cstdint>

namespace ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 8, TILE_QUERIES = 6;
#else
constexpr int TILE_ROWS = 2, TILE_QUERIES = 2;
#endif

// Calls work.operator()<rows>() for a height that is known only now, from 1 to MOST.
template <int MOST, class Work>
inline void with_rows(int64_t rows, const Work& work) {
    if constexpr (MOST > 1)
        if (rows < MOST) return with_rows<MOST - 1>(rows, work);
    work.template operator()<MOST>();
}

}  // namespace ISA_NAMESPACE

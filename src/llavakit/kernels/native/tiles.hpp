// How tall a tile is, of activations or of queries: there are registers for so many rows. Tiles of at most WHOLE_ROWS
// take all lanes of a panel at once, and taller ones one vector of them after the other: the fewer registers there are,
// the more often weights would have to be taken apart.

#pragma once

#include <cstdint>

namespace ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 8, WHOLE_ROWS = 8, TILE_QUERIES = 6;
#elif defined(__AVXVNNI__)
constexpr int TILE_ROWS = 5, WHOLE_ROWS = 2, TILE_QUERIES = 2;
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 4, WHOLE_ROWS = 2, TILE_QUERIES = 2;
#else
constexpr int TILE_ROWS = 2, WHOLE_ROWS = 2, TILE_QUERIES = 2;
#endif

// Calls work.operator()<rows>() for a height that is known only now, from 1 to MOST.
template <int MOST, class Work>
inline void with_rows(int64_t rows, const Work& work) {
    if constexpr (MOST > 1)
        if (rows < MOST) return with_rows<MOST - 1>(rows, work);
    work.template operator()<MOST>();
}

}  // namespace ISA_NAMESPACE

// How tall a tile is, of activations or of queries: as many rows as there are registers for.

#pragma once

#include <cstdint>

namespace ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 6;
#else
constexpr int TILE_ROWS = 2;
#endif

// Calls work.operator()<rows>() for a height that is known only now, from 1 to TILE_ROWS.
template <class Work>
inline void with_rows(int64_t rows, const Work& work) {
    switch (rows) {
        case 1: return work.template operator()<1>();
        case 2: return work.template operator()<2>();
#if defined(__AVX512F__)
        case 3: return work.template operator()<3>();
        case 4: return work.template operator()<4>();
        case 5: return work.template operator()<5>();
        case 6: return work.template operator()<6>();
#endif
    }
}

}  // namespace ISA_NAMESPACE

// The tile registers of AMX: eight of up to 16 lines of 64 bytes, and products of whole tiles. For the kernels' own tests
// they are emulated, so that what is written for them is tested on every machine.

#pragma once

#include <algorithm>

#include "lanes.hpp"

namespace ISA_NAMESPACE {

constexpr int AMX_LINES = 16, AMX_BYTES = 1024;  // of a whole tile

#if defined(__AMX_INT8__) || defined(LLAVAKIT_EMULATED_AMX)
constexpr bool HAS_AMX = true;
#else
constexpr bool HAS_AMX = false;
#endif

struct AmxShape {
    uint8_t lines = AMX_LINES;
    uint16_t bytes = 64;  // of a line
};

enum AmxSign { SIGNED, UNSIGNED };  // of the right one's bytes

#if defined(__AMX_INT8__)

// This thread's tiles, in use as long as this lives.
class AmxTiles {
   public:
    explicit AmxTiles(const AmxShape (&shapes)[8]) {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t lines[16] = {};
        } config;
        for (int tile = 0; tile < 8; tile++) config.bytes[tile] = shapes[tile].bytes, config.lines[tile] = shapes[tile].lines;
        asm volatile("ldtilecfg %0" ::"m"(config));
    }
    AmxTiles(const AmxTiles&) = delete;
    AmxTiles& operator=(const AmxTiles&) = delete;
    ~AmxTiles() { asm volatile("tilerelease"); }

    template <int TILE>
    LANES_INLINE void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
    }

    // Lines that are `stride` bytes apart.
    template <int TILE>
    LANES_INLINE void load(const void* from, int64_t stride = 64) {
        asm volatile("tileloadd (%0,%1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(TILE) : "memory");
    }

    // A whole tile.
    template <int TILE>
    LANES_INLINE void store(void* to) {
        asm volatile("tilestored %%tmm%c3, (%1,%2)" : "=m"(*(Whole*)to) : "r"(to), "r"(int64_t(64)), "i"(TILE));
    }

    // To lane n of line m of SUMS, the products of line m of LEFT, signed bytes, with what RIGHT has for lane n: in each
    // of its lines four bytes.
    template <int SUMS, int LEFT, int RIGHT, AmxSign SIGN = SIGNED>
    LANES_INLINE void dot() {
        if constexpr (SIGN == SIGNED)
            asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(LEFT), "i"(RIGHT));
        else
            asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(LEFT), "i"(RIGHT));
    }

   private:
    struct __attribute__((may_alias)) Whole {
        char bytes[AMX_BYTES];
    };
};

#else

class AmxTiles {
   public:
    explicit AmxTiles(const AmxShape (&shapes)[8]) { std::copy_n(shapes, 8, shapes_); }

    template <int TILE>
    void zero() {
        std::memset(tiles_[TILE], 0, AMX_BYTES);
    }

    template <int TILE>
    void load(const void* from, int64_t stride = 64) {
        for (int line = 0; line < shapes_[TILE].lines; line++)
            std::memcpy(tiles_[TILE] + 64 * line, (const uint8_t*)from + stride * line, shapes_[TILE].bytes);
    }

    template <int TILE>
    void store(void* to) {
        std::memcpy(to, tiles_[TILE], AMX_BYTES);
    }

    template <int SUMS, int LEFT, int RIGHT, AmxSign SIGN = SIGNED>
    void dot() {
        int32_t sums[AMX_LINES][LANES];
        std::memcpy(sums, tiles_[SUMS], AMX_BYTES);
        for (int m = 0; m < shapes_[LEFT].lines; m++)
            for (int k = 0; k < shapes_[LEFT].bytes; k++)
                for (int n = 0; n < LANES; n++) {
                    const uint8_t right = tiles_[RIGHT][64 * (k / 4) + 4 * n + k % 4];
                    sums[m][n] += int8_t(tiles_[LEFT][64 * m + k]) * (SIGN == SIGNED ? int8_t(right) : int(right));
                }
        std::memcpy(tiles_[SUMS], sums, AMX_BYTES);
    }

   private:
    AmxShape shapes_[8];
    uint8_t tiles_[8][AMX_BYTES];
};

#endif

}  // namespace ISA_NAMESPACE

// Small numbers in bytes: taken apart, and multiplied four at a time, as every instruction set does it best.

#pragma once

#include "lanes.hpp"

namespace ISA_NAMESPACE {

// Four bytes, in every lane.
template <int N = VECTORS>
LANES_INLINE BytesOf<N> all_fours(const int8_t* four) {
    int32_t packed;
    std::memcpy(&packed, four, 4);
    BytesOf<N> x;
#if defined(__AVX512F__)
    x.part[0] = (ByteVector)_mm512_set1_epi32(packed);
#elif defined(__AVX2__)
    FOR_PARTS_OF(N) x.part[i] = (ByteVector)_mm256_set1_epi32(packed);
#else
    FOR_PARTS_OF(N) x.part[i] = (ByteVector)(IntVector{} + packed);
#endif
    return x;
}

// To each lane, the products of its four unsigned bytes with four signed ones.
// `CODES_BELOW_128` tells that the unsigned ones are small, so that pairs of products fit in 16 bits.
template <bool CODES_BELOW_128, int N>
LANES_INLINE IntsOf<N> dot4(IntsOf<N> total, BytesOf<N> codes, BytesOf<N> fours) {
#if defined(__AVX512VNNI__)
    total.part[0] = (IntVector)_mm512_dpbusd_epi32((__m512i)total.part[0], (__m512i)codes.part[0], (__m512i)fours.part[0]);
#elif defined(__AVXVNNI__)
    FOR_PARTS_OF(N) total.part[i] =
        (IntVector)_mm256_dpbusd_avx_epi32((__m256i)total.part[i], (__m256i)codes.part[i], (__m256i)fours.part[i]);
#elif defined(__AVX2__)
    FOR_PARTS_OF(N) {
        const __m256i w = (__m256i)codes.part[i], a = (__m256i)fours.part[i];
        __m256i pairs;
        if constexpr (CODES_BELOW_128) {
            pairs = _mm256_maddubs_epi16(w, a);
        } else {
            // Pairs of 255 * 127 do not fit: the lower seven bits and the highest one apart.
            const __m256i low = _mm256_and_si256(w, _mm256_set1_epi8(0x7f));
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(w, 7), _mm256_set1_epi8(1));
            const __m256i ones = _mm256_set1_epi16(1);
            const __m256i rest = _mm256_madd_epi16(_mm256_maddubs_epi16(high, a), ones);
            total.part[i] += (IntVector)_mm256_slli_epi32(rest, 7);
            pairs = _mm256_maddubs_epi16(low, a);
        }
        total.part[i] += (IntVector)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
#else
    uint8_t bytes[sizeof codes];
    int8_t signed_bytes[sizeof codes];
    int32_t lanes[sizeof codes / 4];
    std::memcpy(bytes, &codes, sizeof codes);
    std::memcpy(signed_bytes, &fours, sizeof codes);
    std::memcpy(lanes, &total, sizeof codes);
    for (size_t i = 0; i < sizeof codes / 4; i++)
        for (int j = 0; j < 4; j++) lanes[i] += int32_t(bytes[4 * i + j]) * signed_bytes[4 * i + j];
    std::memcpy(&total, lanes, sizeof codes);
#endif
    return total;
}

// Where there is no instruction for dot4, products come as 16 bits, two and two, and it takes some care and time to add
// them up. So weights of 4 bits are added as they come, as long as they fit, and those of 8 bits get a sign.
constexpr int DOTS_OF_PAIRS = 8;  // of codes below 16: 8 * 2 * 15 * 127 is below 2^15

#if defined(__AVX2__) && !defined(__AVXVNNI__) && !defined(__AVX512VNNI__)
constexpr bool IN_PAIRS = true;

// Of SMALL codes, below 16: to sums of pairs, which `add_pairs` adds to a total.
template <bool SMALL, int N>
LANES_INLINE IntsOf<N> add_dots(IntsOf<N> pairs, BytesOf<N> codes, BytesOf<N> fours) {
    FOR_PARTS_OF(N) {
        const __m256i two = _mm256_maddubs_epi16((__m256i)codes.part[i], (__m256i)fours.part[i]);
        pairs.part[i] = (IntVector)_mm256_add_epi16((__m256i)pairs.part[i], two);
        asm("" : "+x"(pairs.part[i]));  // or the compiler adds up later, and puts all that waits into memory
    }
    return pairs;
}

template <int N>
LANES_INLINE IntsOf<N> add_pairs(IntsOf<N> total, IntsOf<N> pairs) {
    FOR_PARTS_OF(N) total.part[i] += (IntVector)_mm256_madd_epi16((__m256i)pairs.part[i], _mm256_set1_epi16(1));
    return total;
}

// Codes of 8 bits, none of them 0, less 128: their magnitudes, and what has their signs.
template <int N>
struct CentredOf {
    BytesOf<N> magnitude, sign;
};

template <int N>
LANES_INLINE CentredOf<N> centred(BytesOf<N> codes) {
    CentredOf<N> x;
    FOR_PARTS_OF(N) {
        x.sign.part[i] = codes.part[i] ^ 128;
        x.magnitude.part[i] = (ByteVector)_mm256_abs_epi8((__m256i)x.sign.part[i]);
    }
    return x;
}

template <bool SMALL, int N>
LANES_INLINE IntsOf<N> add_dots(IntsOf<N> total, CentredOf<N> codes, BytesOf<N> fours) {
    FOR_PARTS_OF(N) {
        const __m256i turned = _mm256_sign_epi8((__m256i)fours.part[i], (__m256i)codes.sign.part[i]);
        const __m256i pairs = _mm256_maddubs_epi16((__m256i)codes.magnitude.part[i], turned);
        total.part[i] += (IntVector)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        asm("" : "+x"(total.part[i]));
    }
    return total;
}
#else
constexpr bool IN_PAIRS = false;

template <bool SMALL, int N>
LANES_INLINE IntsOf<N> add_dots(IntsOf<N> total, BytesOf<N> codes, BytesOf<N> fours) {
    return dot4<SMALL>(total, codes, fours);
}

// Codes of 8 bits as they are: whoever adds them up takes off the 128.
template <int N>
LANES_INLINE BytesOf<N> centred(BytesOf<N> codes) {
    return codes;
}
#endif

template <int N>
LANES_INLINE BytesOf<N> low_nibbles(BytesOf<N> x) {
    FOR_PARTS_OF(N) x.part[i] &= 15;
    return x;
}

template <int N>
LANES_INLINE BytesOf<N> high_nibbles(BytesOf<N> x) {
#if defined(__AVX512F__)
    x.part[0] = (ByteVector)_mm512_and_si512(_mm512_srli_epi16((__m512i)x.part[0], 4), _mm512_set1_epi8(15));
#elif defined(__AVX2__)
    FOR_PARTS_OF(N) x.part[i] = (ByteVector)_mm256_and_si256(_mm256_srli_epi16((__m256i)x.part[i], 4), _mm256_set1_epi8(15));
#else
    FOR_PARTS_OF(N) x.part[i] >>= 4;
#endif
    return x;
}

// Each byte, below 16, replaced by that entry of a table.
template <int N>
LANES_INLINE BytesOf<N> look_up(BytesOf<N> x, const uint8_t* table) {
#if defined(__AVX512F__)
    const __m512i entries = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table));
    x.part[0] = (ByteVector)_mm512_shuffle_epi8(entries, (__m512i)x.part[0]);
#elif defined(__AVX2__)
    const __m256i entries = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
    FOR_PARTS_OF(N) x.part[i] = (ByteVector)_mm256_shuffle_epi8(entries, (__m256i)x.part[i]);
#else
    FOR_PARTS_OF(N) for (int j = 0; j < VECTOR_BYTES; j++) x.part[i][j] = table[x.part[i][j]];
#endif
    return x;
}

}  // namespace ISA_NAMESPACE

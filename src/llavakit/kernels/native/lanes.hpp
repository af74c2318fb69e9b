// Sixteen lanes of float or int32, made of whatever vectors the instruction set has: one of 64 bytes, two of 32, four
// of 16. Kernels are written once over these; a panel of a packed matrix is as tall as they are wide.
//
// Included inside a namespace for each instruction set: nothing here may have external linkage.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define LANES_INLINE inline __attribute__((always_inline))

namespace ISA_NAMESPACE {

constexpr int LANES = 16;

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

constexpr int VECTORS = 64 / VECTOR_BYTES;

typedef float FloatVector __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t IntVector __attribute__((vector_size(VECTOR_BYTES)));
typedef uint8_t ByteVector __attribute__((vector_size(VECTOR_BYTES)));

// Where there are not registers enough for all sixteen lanes, some kernels go through them vector by vector: of N vectors.
template <int N>
struct FloatsOf {
    FloatVector part[N];
};

template <int N>
struct IntsOf {
    IntVector part[N];
};

template <int N>
struct BytesOf {
    ByteVector part[N];
};

using Floats = FloatsOf<VECTORS>;
using Ints = IntsOf<VECTORS>;
using Bytes = BytesOf<VECTORS>;

#define FOR_PARTS_OF(N) _Pragma("GCC unroll 4") for (int i = 0; i < N; i++)
#define FOR_PARTS FOR_PARTS_OF(VECTORS)

// Lanes of any kind from memory and into it.
template <class X>
LANES_INLINE X load_as(const void* from) {
    X x;
    FOR_PARTS_OF(int(sizeof x.part / VECTOR_BYTES)) std::memcpy(&x.part[i], (const uint8_t*)from + i * VECTOR_BYTES, VECTOR_BYTES);
    return x;
}

template <class X>
LANES_INLINE void store_as(void* to, X x) {
    FOR_PARTS std::memcpy((uint8_t*)to + i * VECTOR_BYTES, &x.part[i], VECTOR_BYTES);
}

LANES_INLINE Floats load(const float* from) { return load_as<Floats>(from); }
LANES_INLINE Ints load(const int32_t* from) { return load_as<Ints>(from); }

template <int N = VECTORS>
LANES_INLINE BytesOf<N> load_bytes(const uint8_t* from) {
    return load_as<BytesOf<N>>(from);
}

LANES_INLINE void store(float* to, Floats x) { store_as(to, x); }
LANES_INLINE void store(int32_t* to, Ints x) { store_as(to, x); }
LANES_INLINE void store(uint8_t* to, Bytes x) { store_as(to, x); }

template <int N = VECTORS>
LANES_INLINE FloatsOf<N> all(float value) {
    FloatsOf<N> x;
#if defined(__AVX512F__)
    x.part[0] = _mm512_set1_ps(value);
#elif defined(__AVX2__)
    FOR_PARTS_OF(N) x.part[i] = _mm256_set1_ps(value);
#else
    FOR_PARTS_OF(N) for (int j = 0; j < VECTOR_BYTES / 4; j++) x.part[i][j] = value;
#endif
    return x;
}

template <int N = VECTORS>
LANES_INLINE IntsOf<N> all_ints(int32_t value) {
    IntsOf<N> x;
    FOR_PARTS_OF(N) x.part[i] = IntVector{} + value;
    return x;
}

LANES_INLINE Floats operator+(Floats a, Floats b) {
    FOR_PARTS a.part[i] += b.part[i];
    return a;
}

LANES_INLINE Floats operator-(Floats a, Floats b) {
    FOR_PARTS a.part[i] -= b.part[i];
    return a;
}

template <int N>
LANES_INLINE FloatsOf<N> operator*(FloatsOf<N> a, FloatsOf<N> b) {
    FOR_PARTS_OF(N) a.part[i] *= b.part[i];
    return a;
}

LANES_INLINE Floats operator/(Floats a, Floats b) {
    FOR_PARTS a.part[i] /= b.part[i];
    return a;
}

LANES_INLINE Ints operator+(Ints a, Ints b) {
    FOR_PARTS a.part[i] += b.part[i];
    return a;
}

LANES_INLINE Ints operator-(Ints a, Ints b) {
    FOR_PARTS a.part[i] -= b.part[i];
    return a;
}

template <int BITS>
LANES_INLINE Ints shifted_left(Ints x) {
    FOR_PARTS x.part[i] <<= BITS;
    return x;
}

// The sign comes along.
template <int BITS>
LANES_INLINE Ints shifted_right(Ints x) {
    FOR_PARTS x.part[i] >>= BITS;
    return x;
}

// x, with the lowest byte of each lane of `bytes` in place of one of its own.
LANES_INLINE Ints with_byte(Ints x, int which, Ints bytes) {
    FOR_PARTS x.part[i] = (x.part[i] & ~(255 << 8 * which)) | (bytes.part[i] & 255) << 8 * which;
    return x;
}

LANES_INLINE Floats max(Floats a, Floats b) {
    FOR_PARTS a.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return a;
}

LANES_INLINE Floats min(Floats a, Floats b) {
    FOR_PARTS a.part[i] = a.part[i] < b.part[i] ? a.part[i] : b.part[i];
    return a;
}

// a * b + c, rounded once where the processor can.
template <int N>
LANES_INLINE FloatsOf<N> fma(FloatsOf<N> a, FloatsOf<N> b, FloatsOf<N> c) {
#if defined(__AVX512F__)
    c.part[0] = _mm512_fmadd_ps(a.part[0], b.part[0], c.part[0]);
#elif defined(__FMA__)
    FOR_PARTS_OF(N) c.part[i] = _mm256_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#else
    FOR_PARTS_OF(N) c.part[i] += a.part[i] * b.part[i];
#endif
    return c;
}

template <int N>
LANES_INLINE FloatsOf<N> to_floats(IntsOf<N> x) {
    FloatsOf<N> y;
    FOR_PARTS_OF(N) y.part[i] = __builtin_convertvector(x.part[i], FloatVector);
    return y;
}

// Lanes whose number is below `count` as they are, the others `other`.
LANES_INLINE Floats keep(Floats x, int count, float other) {
    IntVector lane;
    for (int i = 0; i < VECTORS; i++) {
        for (int j = 0; j < VECTOR_BYTES / 4; j++) lane[j] = i * (VECTOR_BYTES / 4) + j;
        x.part[i] = lane < count ? x.part[i] : FloatVector{} + other;
    }
    return x;
}

// Sums and maxima over the lanes, always in the same order.
LANES_INLINE float sum(Floats x) {
    float lanes[LANES];
    store(lanes, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

LANES_INLINE int32_t sum(Ints x) {
    int32_t lanes[LANES], total = 0;
    std::memcpy(lanes, &x, sizeof lanes);
    for (int i = 0; i < LANES; i++) total += lanes[i];
    return total;
}

LANES_INLINE int32_t largest_of(Ints x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)x.part[0]);
#else
    int32_t lanes[LANES], most;
    std::memcpy(lanes, &x, sizeof lanes);
    most = lanes[0];
    for (int i = 1; i < LANES; i++) most = most > lanes[i] ? most : lanes[i];
    return most;
#endif
}

LANES_INLINE float largest(Floats x) {
    float lanes[LANES];
    store(lanes, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

LANES_INLINE Floats magnitude(Floats x) {
    FOR_PARTS x.part[i] = (FloatVector)((IntVector)x.part[i] & 0x7fffffff);
    return x;
}

// The nearest whole numbers, halves to the even one; |x| stays far below 2^22 here.
LANES_INLINE Floats nearest(Floats x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bits for a fraction
    FOR_PARTS x.part[i] = (x.part[i] + magic) - magic;
    return x;
}

LANES_INLINE Ints to_ints(Floats x) {
    Ints y;
    FOR_PARTS y.part[i] = __builtin_convertvector(x.part[i], IntVector);
    return y;
}

// e to the x, within two units in the last place; 0 below -50, where nothing of it is left beside 1. Smaller ones, scaled
// once or twice, are subnormal, which takes some processors far longer. What is no number stays none.
LANES_INLINE Floats exp(Floats x) {
    x = max(all(-88.0f), min(all(88.0f), x));  // of two, the second one where either is no number
    const Floats n = nearest(x * all(1.44269504f));
    Floats r = fma(n, all(-0.693359375f), x);
    r = fma(n, all(2.12194440e-4f), r);
    Floats p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    p = fma(p, r * r, r + all(1.0f));
    const Ints exponent = to_ints(n);
    Floats power;
    FOR_PARTS power.part[i] = (FloatVector)((exponent.part[i] + 127) << 23);
    p = p * power;
    FOR_PARTS p.part[i] = x.part[i] <= -50.0f ? FloatVector{} : p.part[i];
    return p;
}

// float16 in memory <-> float.
LANES_INLINE float half_to_float(uint16_t half) {
    uint32_t magnitude = uint32_t(half & 0x7fff) << 13, sign = uint32_t(half & 0x8000) << 16;
    if ((half & 0x7c00) == 0x7c00) magnitude |= 0x7f800000;  // infinite, or no number
    float value;
    std::memcpy(&value, &magnitude, 4);
    if ((half & 0x7c00) != 0x7c00) value *= 5.192296858534828e33f;  // 2^112, the difference of the exponents' biases
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits |= sign;
    std::memcpy(&value, &bits, 4);
    return value;
}

LANES_INLINE uint16_t float_to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
    if (magnitude < 0x38800000) {  // subnormal: let the adder round
        float small, half_unit = 0.5f;
        std::memcpy(&small, &magnitude, 4);
        small += half_unit;
        uint32_t rounded;
        std::memcpy(&rounded, &small, 4);
        return uint16_t(sign | (rounded - 0x3f000000));
    }
    const uint32_t odd = (magnitude >> 13) & 1;
    return uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13));
}

template <int N = VECTORS>
LANES_INLINE FloatsOf<N> load_halves(const uint16_t* from) {
    FloatsOf<N> x;
#if defined(__AVX512F__)
    x.part[0] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(__F16C__)
    FOR_PARTS_OF(N) x.part[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + 8 * i)));
#else
    float lanes[sizeof x / sizeof(float)];
    for (size_t i = 0; i < sizeof x / sizeof(float); i++) lanes[i] = half_to_float(from[i]);
    std::memcpy(&x, lanes, sizeof x);
#endif
    return x;
}

LANES_INLINE void store_halves(uint16_t* to, Floats x) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph(x.part[0], _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    FOR_PARTS _mm_storeu_si128((__m128i*)(to + 8 * i), _mm256_cvtps_ph(x.part[i], _MM_FROUND_TO_NEAREST_INT));
#else
    float lanes[LANES];
    store(lanes, x);
    for (int i = 0; i < LANES; i++) to[i] = float_to_half(lanes[i]);
#endif
}

// bfloat16 is the upper half of a float.
template <int N = VECTORS>
LANES_INLINE FloatsOf<N> load_bfloats(const uint16_t* from) {
    FloatsOf<N> x;
#if defined(__AVX512F__)
    x.part[0] = (FloatVector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#else
    uint32_t bits[sizeof x / sizeof(float)];
    for (size_t i = 0; i < sizeof x / sizeof(float); i++) bits[i] = uint32_t(from[i]) << 16;
    std::memcpy(&x, bits, sizeof x);
#endif
    return x;
}

LANES_INLINE Floats load_signed_bytes(const int8_t* from) {
    Floats x;
#if defined(__AVX512F__)
    x.part[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(__AVX2__)
    FOR_PARTS x.part[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(from + 8 * i))));
#else
    float lanes[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = float(from[i]);
    x = load(lanes);
#endif
    return x;
}

// Whole numbers that fit in 8 bits.
LANES_INLINE void store_signed_bytes(int8_t* to, Ints x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x.part[0]));
#else
    int32_t lanes[LANES];
    std::memcpy(lanes, &x, sizeof lanes);
    for (int i = 0; i < LANES; i++) to[i] = int8_t(lanes[i]);
#endif
}

LANES_INLINE void prefetch(const void* address) { __builtin_prefetch(address, 0, 3); }

}  // namespace ISA_NAMESPACE

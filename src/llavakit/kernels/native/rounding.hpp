// Numbers to whole ones, by the largest magnitude of those that share a scale.

#pragma once

#include "lanes.hpp"

namespace ISA_NAMESPACE {

// Compared as whole numbers, where what is no number comes behind all that are: it is not lost.
LANES_INLINE float largest_magnitude(const float* x, int count) {
    Ints most = all_ints(0);
    for (int first = 0; first < count; first += LANES) {
        const Floats here = magnitude(load(x + first));
        FOR_PARTS most.part[i] = most.part[i] > (IntVector)here.part[i] ? most.part[i] : (IntVector)here.part[i];
    }
    const int32_t bits = largest_of(most);
    float largest;
    std::memcpy(&largest, &bits, 4);
    return largest;
}

// Calls each(i, whole numbers of x[i] to x[i + 15]) for all of x, from -MOST to MOST, and returns what they are to be
// multiplied with.
template <int MOST, class Each>
LANES_INLINE float to_whole(const float* x, int count, const Each& each) {
    const float most = largest_magnitude(x, count);
    // Times a scale that is no number, or none that ends, not even zeros are numbers: it is not lost.
    const bool is_finite = most <= 3.4028235e38f;
    // A group too small to have an inverse is all zeros.
    const float inverse = is_finite && most > float(MOST) / 3.4028235e38f ? float(MOST) / most : 0.0f;
    for (int i = 0; i < count; i += LANES)
        each(i, is_finite ? to_ints(nearest(load(x + i) * all(inverse))) : all_ints(0));
    return most / float(MOST);
}

}  // namespace ISA_NAMESPACE

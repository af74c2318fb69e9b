// Which of some numbers are the largest.

#pragma once

#include <cstdint>

namespace llavakit {

// The places of the `kept` largest of `count` numbers, in ascending order, to `to`; of equals the first. What is not a
// number counts as the smallest.
void largest(const float* numbers, int64_t count, int64_t kept, int32_t* to);

}  // namespace llavakit

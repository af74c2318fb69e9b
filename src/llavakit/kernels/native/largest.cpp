#include "largest.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace llavakit {

void largest(const float* numbers, int64_t count, int64_t kept, int32_t* to) {
    const auto worth = [&](int32_t i) {
        return std::isnan(numbers[i]) ? -std::numeric_limits<float>::infinity() : numbers[i];
    };
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return worth(a) > worth(b); });
    std::sort(order.begin(), order.begin() + kept);
    std::copy_n(order.begin(), kept, to);
}

}  // namespace llavakit

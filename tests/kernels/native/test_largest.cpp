#include "largest.hpp"

#include <cmath>
#include <vector>

#include "check.hpp"

using llavakit::largest;

namespace {

std::vector<int32_t> found(const std::vector<float>& numbers, int64_t kept) {
    std::vector<int32_t> places(kept);
    largest(numbers.data(), int64_t(numbers.size()), kept, places.data());
    return places;
}

}  // namespace

TEST(the_largest_come_in_their_order) {
    CHECK((found({0.1f, 0.4f, 0.2f, 0.3f}, 2) == std::vector<int32_t>{1, 3}));
    CHECK((found({0.1f, 0.4f, 0.2f, 0.3f}, 4) == std::vector<int32_t>{0, 1, 2, 3}));
    CHECK((found({5.0f}, 1) == std::vector<int32_t>{0}));
}

TEST(of_equals_the_first_are_taken) {
    CHECK((found({0.2f, 0.5f, 0.2f, 0.2f, 0.5f, 0.2f}, 4) == std::vector<int32_t>{0, 1, 2, 4}));
    CHECK((found(std::vector<float>(100, 1.0f), 3) == std::vector<int32_t>{0, 1, 2}));
}

TEST(what_is_no_number_comes_last) {
    CHECK((found({NAN, -1.0f, NAN, 3.0f}, 2) == std::vector<int32_t>{1, 3}));
    CHECK((found(std::vector<float>(50, NAN), 2) == std::vector<int32_t>{0, 1}));
}

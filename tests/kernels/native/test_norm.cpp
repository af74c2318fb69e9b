#include <cmath>

#include "check.hpp"
#include "kernels.hpp"

// Vectors of exactly the right size, so that the sanitizer sees a byte too far.
TEST(rms_norm_of_every_width) {
    for (int64_t dim = 1; dim < 100; dim++) {
        const int64_t rows = 1 + dim % 5;
        std::vector<float> x(rows * dim), weight(dim), to(rows * dim);
        for (size_t i = 0; i < x.size(); i++) x[i] = float(int(i * 37 % 101) - 50) / 16;
        for (size_t i = 0; i < weight.size(); i++) weight[i] = float(i % 7) - 2;
        llavakit::kernels().rms_norm(x.data(), weight.data(), rows, dim, 1e-5f, to.data());
        for (int64_t row = 0; row < rows; row++) {
            double squares = 0;
            for (int64_t i = 0; i < dim; i++) squares += double(x[row * dim + i]) * x[row * dim + i];
            const double scale = 1 / std::sqrt(squares / dim + 1e-5);
            for (int64_t i = 0; i < dim; i++) {
                const double wanted = x[row * dim + i] * scale * weight[i];
                CHECK(std::abs(to[row * dim + i] - wanted) < 1e-5);
            }
        }
    }
}

TEST(rms_norm_of_nothing) {
    float none = 0;
    llavakit::kernels().rms_norm(&none, &none, 0, 1, 1e-5f, &none);
    CHECK(none == 0);
}

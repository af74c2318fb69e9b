// What the kernels' own tests are written with: TEST(what is true) { CHECK(...); }. They run under the sanitizers.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> tests;
    return tests;
}

#define TEST(name)                                                             \
    static void name();                                                        \
    static const bool name##_is_listed = (tests().push_back({#name, name}), true); \
    static void name()

#define CHECK(claim)                                                             \
    do {                                                                         \
        if (!(claim)) {                                                          \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
            std::exit(1);                                                        \
        }                                                                        \
    } while (false)

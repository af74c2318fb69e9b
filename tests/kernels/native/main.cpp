// Runs every test for every instruction set of this processor.

#include "check.hpp"
#include "kernels.hpp"

int main() {
    for (const std::string& name : llavakit::instruction_sets()) {
        llavakit::use_instruction_set(name);
        for (const Test& test : tests()) test.run();
        std::printf("%s: %zu tests of the native kernels passed\n", name.c_str(), tests().size());
    }
}

// The kernels of one instruction set, as a table of plain functions, and the choice among such tables.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llavakit {

struct Kernels {
    const char* name;

    // x [rows, dim] by its root mean square and `weight` [dim], to `to` [rows, dim].
    void (*rms_norm)(const float* x, const float* weight, int64_t rows, int64_t dim, float eps, float* to);
};

// The instruction sets that were built and that this processor has, the best one first.
std::vector<std::string> instruction_sets();

// The kernels in use: of the best instruction set, or of the one that LLAVAKIT_ISA names.
// Throws std::invalid_argument where that is none of `instruction_sets()`.
const Kernels& kernels();

// Uses another instruction set from now on. Not while a kernel runs.
void use_instruction_set(const std::string& name);

}  // namespace llavakit

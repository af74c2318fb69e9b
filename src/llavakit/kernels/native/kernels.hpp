// The kernels of one instruction set, as a table of plain functions, and the choice among such tables.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph.hpp"

namespace llavakit {

struct Kernels {
    const char* name;

    // x [rows, weights.cols] times the transposed weights, plus their bias, to `to` [rows, weights.rows].
    void (*matmul)(const Matrix& weights, const float* x, int64_t rows, float* to, Workspace& workspace);

    // One step of a decoder: new tokens of several sequences into the cache, and the logits that are wanted.
    void (*decoder_step)(const Decoder& decoder, const Batch& batch, Workspace& workspace);

    // All layers of a vision tower over x [views, seq, dim], in place. `looks`, where it is wanted, becomes how the
    // first position of each view looks at all: weights [layers, views, heads, seq].
    void (*tower_run)(const Tower& tower, float* x, int64_t views, int64_t seq, float* looks, Workspace& workspace);
};

// Whether there are AMX's registers for tiles of bytes. They are large, so Linux saves them only for a process that asks:
// this asks, for all its threads.
bool may_use_amx();

// The instruction sets that were built and that this processor has, the best one first.
std::vector<std::string> instruction_sets();

// The kernels in use: of the best instruction set, or of the one that LLAVAKIT_ISA names.
// Throws std::invalid_argument where that is none of `instruction_sets()`.
const Kernels& kernels();

// Uses another instruction set from now on. Not while a kernel runs.
void use_instruction_set(const std::string& name);

}  // namespace llavakit

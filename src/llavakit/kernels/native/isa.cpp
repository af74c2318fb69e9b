// All kernels for one instruction set. Compiled once for each, with its flags, ISA_NAMESPACE and ISA_NAME.
//
// Whatever is included here and is not in ISA_NAMESPACE must not be code: the linker keeps one copy of an inline
// function, and a copy made for AVX-512 would stop an older processor.

#include "decoder.hpp"
#include "kernels.hpp"
#include "tower.hpp"

namespace ISA_NAMESPACE {

extern const llavakit::Kernels table;
const llavakit::Kernels table = {
    .name = ISA_NAME,
    .matmul = matmul,
    .decoder_step = decoder_step,
    .tower_run = tower_run,
};

}  // namespace ISA_NAMESPACE

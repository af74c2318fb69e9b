// All kernels for one instruction set. Compiled once for each, with its flags, ISA_NAMESPACE and ISA_NAME.
//
// Whatever is included here and is not in ISA_NAMESPACE must not be code: the linker keeps one copy of an inline
// function, and a copy made for AVX-512 would stop an older processor.

#include "kernels.hpp"
#include "norm.hpp"

namespace ISA_NAMESPACE {

extern const llavakit::Kernels table;
const llavakit::Kernels table = {
    .name = ISA_NAME,
    .rms_norm = rms_norm_rows,
};

}  // namespace ISA_NAMESPACE

// The module llavakit.kernels._native: tensors in by DLPack, plain functions behind.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "kernels.hpp"
#include "pool.hpp"
#include "probe.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatsOut2 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

namespace {

void rms_norm(const Floats2& x, const Floats1& weight, float eps, const FloatsOut2& to) {
    if (weight.shape(0) != x.shape(1) || to.shape(0) != x.shape(0) || to.shape(1) != x.shape(1))
        throw std::invalid_argument("rms_norm: x [rows, dim], weight [dim] and the result [rows, dim] do not fit");
    const nb::gil_scoped_release others_may_run;
    llavakit::kernels().rms_norm(x.data(), weight.data(), int64_t(x.shape(0)), int64_t(x.shape(1)), eps, to.data());
}

}  // namespace

NB_MODULE(_native, module) {
    module.def("instruction_sets", llavakit::instruction_sets);
    module.def("instruction_set", [] { return std::string(llavakit::kernels().name); });
    module.def("use_instruction_set", llavakit::use_instruction_set, "name"_a);
    module.def("cores", llavakit::cores);
    module.def("threads", llavakit::threads);
    module.def("set_threads", llavakit::set_threads, "count"_a);
    module.def("probe_read_bandwidth", probe_read_bandwidth, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
    module.def("probe_int8_rate", probe_int8_rate, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
    module.def("rms_norm", rms_norm, "x"_a, "weight"_a, "eps"_a, "to"_a);
}

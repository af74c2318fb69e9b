// The module llavakit.kernels._native: tensors in by DLPack, plain functions behind. kernels/graph.py has its face.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>

#include "kernels.hpp"
#include "pool.hpp"
#include "probe.hpp"
#include "stopwatch.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

template <class T, size_t DIMS>
using Array = nb::ndarray<T, nb::ndim<DIMS>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<const float, 1>;
using Bytes1 = Array<const uint8_t, 1>;
using Ints1 = Array<const int32_t, 1>;

namespace {

using namespace llavakit;

void expect(bool is_so, const char* what) {
    if (!is_so) throw std::invalid_argument(what);
}

// Graphs have scratch memory for each thread, so their number stays while one runs.
std::shared_mutex number_of_threads;

void set_threads_between_graphs(int count) {
    const nb::gil_scoped_release others_may_run;
    const std::unique_lock lock(number_of_threads);
    set_threads(count);
}

// A packed matrix, whose bytes somebody else keeps.
Matrix matrix(const Bytes1& data, int64_t rows, int64_t cols, const std::string& kind, int group,
              const std::optional<Floats1>& bias) {
    static const std::map<std::string, Kind> kinds{{"int4", INT4},       {"int4z", INT4Z},      {"nf4", NF4},
                                                   {"int8", INT8},       {"float16", FLOAT16},  {"bfloat16", BFLOAT16}};
    const auto found = kinds.find(kind);
    expect(rows > 0 && cols > 0 && found != kinds.end() && (group == 32 || group == 128), "a packed matrix of an unknown kind or group");
    Matrix made;
    made.data = data.data();
    made.rows = rows;
    made.cols = cols;
    made.kind = found->second;
    made.group = group;
    made.bias = bias ? bias->data() : nullptr;
    expect(int64_t(data.shape(0)) == made.panels() * made.panel_bytes(), "a packed matrix of the wrong size");
    expect(!bias || int64_t(bias->shape(0)) == rows, "a bias of the wrong size");
    return made;
}

void matmul(const Matrix& weights, const Array<const float, 2>& x, const Array<float, 2>& to) {
    expect(int64_t(x.shape(1)) == weights.cols && x.shape(0) == to.shape(0) && int64_t(to.shape(1)) == weights.rows,
           "matmul: x [rows, cols], the weights and the result [rows, weights.rows] do not fit");
    static thread_local Workspace workspace;
    const nb::gil_scoped_release others_may_run;
    kernels().matmul(weights, x.data(), int64_t(x.shape(0)), to.data(), workspace);
}

// The pointers of a decoder, and what it works in. The tensors behind them are kept by the Python side.
class DecoderHandle {
   public:
    DecoderHandle(int64_t heads, int64_t kv_heads, int64_t head_dim, float eps, const Floats1& norm,
                  const Matrix& embedding, const Matrix& head, const Array<const float, 2>& cosine,
                  const Array<const float, 2>& sine) {
        decoder_ = {.dim = int64_t(norm.shape(0)), .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim,
                    .inner = 0, .num_layers = 0, .eps = eps, .layers = nullptr, .norm = norm.data(),
                    .embedding = embedding, .head = head, .cosine = cosine.data(), .sine = sine.data()};
        expect(heads > 0 && kv_heads > 0 && head_dim > 0 && decoder_.dim % 16 == 0 && head_dim % 16 == 0 &&
                   heads % kv_heads == 0,
               "a decoder's width and that of its heads have to be multiples of 16");
        expect(embedding.cols == decoder_.dim && head.cols == decoder_.dim && embedding.rows == head.rows,
               "embeddings and head do not fit");
        positions_ = int64_t(cosine.shape(0));
        expect(sine.shape(0) == cosine.shape(0) && sine.shape(1) == cosine.shape(1) &&
                   int64_t(cosine.shape(1)) == head_dim / 2,
               "the tables of angles do not fit");
    }

    void add_layer(const Floats1& input_norm, const Floats1& post_norm, const Matrix& q, const Matrix& k,
                   const Matrix& v, const Matrix& o, const Matrix& gate, const Matrix& up, const Matrix& down) {
        const int64_t dim = decoder_.dim, wide = decoder_.heads * decoder_.head_dim,
                      narrow = decoder_.kv_heads * decoder_.head_dim;
        const auto is = [](const Matrix& m, int64_t rows, int64_t cols) { return m.rows == rows && m.cols == cols; };
        const auto alike = [](const Matrix& a, const Matrix& b) { return a.kind == b.kind && a.group == b.group; };
        expect(is(q, wide, dim) && is(k, narrow, dim) && is(v, narrow, dim) && is(o, dim, wide) &&
                   is(gate, up.rows, dim) && is(up, up.rows, dim) && is(down, dim, up.rows) &&
                   int64_t(input_norm.shape(0)) == dim && int64_t(post_norm.shape(0)) == dim && up.rows % 16 == 0,
               "the matrices of a decoder layer do not fit one another");
        expect(!gate.bias && !up.bias, "gate and up of a decoder have no bias");
        expect(alike(q, k) && alike(q, v) && alike(gate, up), "products of the same numbers need the same kind and group");
        if (!layers_.empty())
            expect(alike(q, layers_[0].q) && alike(o, layers_[0].o) && alike(gate, layers_[0].gate) &&
                       alike(down, layers_[0].down) && up.rows == decoder_.inner,
                   "the layers of a decoder have to be alike");
        decoder_.inner = up.rows;
        layers_.push_back({input_norm.data(), post_norm.data(), q, k, v, o, gate, up, down});
        decoder_.layers = layers_.data();
        decoder_.num_layers = int64_t(layers_.size());
    }

    void step(const Ints1& tokens, const Ints1& positions, const Ints1& starts, const Ints1& cached,
              const Array<const int32_t, 2>& tables,
              const std::optional<Array<const float, 2>>& embeds, const Array<uint8_t, 3>& cache, const Ints1& wanted,
              const Array<float, 2>& logits, const std::optional<Array<const float, 2>>& bias,
              const std::optional<Array<double, 1>>& seconds, int64_t drop_after, const std::optional<Ints1>& later_cached,
              const std::optional<Array<const int32_t, 2>>& pictures) {
        const int64_t rows = int64_t(tokens.shape(0)), sequences = int64_t(starts.shape(0)) - 1;
        const int64_t blocks = int64_t(cache.shape(1)), embedded = embeds ? int64_t(embeds->shape(0)) : 0;
        const int64_t block_bytes = int64_t(cache.shape(2));
        const bool is_halves = block_bytes == decoder_.kv_heads * head_block_bytes(HALVES, decoder_.head_dim);
        const bool is_bytes = block_bytes == decoder_.kv_heads * head_block_bytes(BYTES, decoder_.head_dim);
        expect(decoder_.num_layers > 0 && int64_t(cache.shape(0)) == decoder_.num_layers && (is_halves || is_bytes),
               "the cache is another model's");
        expect(int64_t(positions.shape(0)) == rows && sequences >= 1 && int64_t(tables.shape(0)) == sequences &&
                   int64_t(cached.shape(0)) == sequences && starts(0) == 0 && starts(sequences) == rows,
               "a step's rows and sequences do not fit");
        expect(!seconds || seconds->shape(0) == NUM_PARTS, "seconds of other parts than a step has");
        expect(!bias || (int64_t(bias->shape(0)) == blocks && bias->shape(1) == 16), "the bias is of another cache");
        expect(wanted.shape(0) == logits.shape(0) && int64_t(wanted.shape(0)) <= rows &&
                   int64_t(logits.shape(1)) == decoder_.head.rows,
               "the room for logits does not fit");
        int64_t next = 0;
        for (int64_t row = 0; row < rows; row++) {
            expect(tokens(row) < decoder_.embedding.rows, "a token that the vocabulary does not have");
            next += tokens(row) < 0;
            expect(positions(row) >= 0 && positions(row) < positions_, "a position beyond the context");
        }
        expect(next == embedded && (!embeds || int64_t(embeds->shape(1)) == decoder_.dim),
               "the embeddings given are not as many as their places");
        for (int64_t s = 0; s < sequences; s++) {
            expect(starts(s) < starts(s + 1), "a sequence without new tokens");
            const int64_t last = int64_t(cached(s)) + starts(s + 1) - starts(s) - 1;
            expect(cached(s) >= 0 && last / 16 < int64_t(tables.shape(1)), "more tokens than the block table has room for");
            for (int64_t block = 0; block <= last / 16; block++)
                expect(tables(s, block) >= 0 && tables(s, block) < blocks, "a block that the cache does not have");
        }
        for (size_t i = 0; i < wanted.shape(0); i++)
            expect(wanted(i) >= 0 && wanted(i) < rows, "logits of a row that there is not");
        if (drop_after >= 0)
            check_dropping(drop_after, starts, cached, later_cached, wanted, pictures);
        else
            expect(!pictures && !later_cached, "pictures to drop parts of, but no layer behind which");
        const Batch batch{.rows = rows, .num_sequences = sequences, .starts = starts.data(), .tokens = tokens.data(),
                          .embeds = embeds ? embeds->data() : nullptr, .positions = positions.data(), .cached = cached.data(),
                          .tables = tables.data(), .table_width = int64_t(tables.shape(1)), .cache = cache.data(),
                          .kept = is_halves ? HALVES : BYTES,
                          .layer_stride = int64_t(cache.shape(1) * cache.shape(2)),
                          .bias = bias ? bias->data() : nullptr, .wanted = wanted.data(),
                          .num_wanted = int64_t(wanted.shape(0)), .logits = logits.data(),
                          .seconds = seconds ? seconds->data() : nullptr, .drop_after = drop_after,
                          .later_cached = later_cached ? later_cached->data() : nullptr,
                          .pictures = pictures ? (const PartlyKept*)pictures->data() : nullptr,
                          .num_pictures = pictures ? int64_t(pictures->shape(0)) : 0};
        const nb::gil_scoped_release others_may_run;
        const std::lock_guard one_at_a_time(workspace_lock_);
        const std::shared_lock steady(number_of_threads);
        kernels().decoder_step(decoder_, batch, workspace_);
    }

   private:
    // That the later layers hold no more than the first ones, and that pictures lie in order, each within a sequence,
    // whose last row and those that are wanted are of none.
    void check_dropping(int64_t drop_after, const Ints1& starts, const Ints1& cached,
                        const std::optional<Ints1>& later_cached, const Ints1& wanted,
                        const std::optional<Array<const int32_t, 2>>& pictures) const {
        const int64_t sequences = int64_t(starts.shape(0)) - 1;
        expect(drop_after > 0 && drop_after < decoder_.num_layers, "nothing can be dropped behind that layer");
        expect(later_cached && int64_t(later_cached->shape(0)) == sequences, "how much the later layers hold is not told");
        for (int64_t s = 0; s < sequences; s++)
            expect((*later_cached)(s) >= 0 && (*later_cached)(s) <= cached(s), "the later layers hold more than the first");
        expect(!pictures || pictures->shape(1) == 3, "a picture is its first row, its end, and how many stay");
        int64_t sequence = 0, before = 0;
        for (size_t i = 0; pictures && i < pictures->shape(0); i++) {
            const int64_t first = (*pictures)(i, 0), end = (*pictures)(i, 1), kept = (*pictures)(i, 2);
            while (sequence < sequences && first >= starts(sequence + 1)) sequence++;
            expect(first >= before && kept > 0 && kept <= end - first && sequence < sequences && end < starts(sequence + 1),
                   "a picture that is not among the rows of a sequence, in front of others");
            for (size_t w = 0; w < wanted.shape(0); w++)
                expect(wanted(w) < first || wanted(w) >= end, "logits of a row that may be dropped");
            before = end;
        }
    }

    Decoder decoder_;
    int64_t positions_;
    std::vector<DecoderLayer> layers_;
    Workspace workspace_;
    std::mutex workspace_lock_;
};

class TowerHandle {
   public:
    TowerHandle(int64_t dim, int64_t heads, float eps, int activation) {
        expect(heads > 0 && dim > 0, "a tower without heads or width");
        tower_ = {.dim = dim, .heads = heads, .head_dim = dim / heads, .inner = 0, .num_layers = 0, .eps = eps,
                  .activation = activation, .layers = nullptr};
        expect(dim % 16 == 0 && dim % heads == 0 && tower_.head_dim % 16 == 0,
               "a tower's width and that of its heads have to be multiples of 16");
    }

    void add_layer(const Floats1& norm1, const Floats1& norm1_bias, const Floats1& norm2, const Floats1& norm2_bias,
                   const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, const Matrix& fc1,
                   const Matrix& fc2) {
        const int64_t dim = tower_.dim;
        for (const Matrix* square : {&q, &k, &v, &out})
            expect(square->rows == dim && square->cols == dim, "the matrices of a tower layer do not fit");
        expect(fc1.cols == dim && fc2.rows == dim && fc2.cols == fc1.rows && fc1.rows % 16 == 0,
               "the matrices of a tower layer do not fit");
        for (const Floats1* norm : {&norm1, &norm1_bias, &norm2, &norm2_bias})
            expect(int64_t(norm->shape(0)) == dim, "the norms of a tower layer do not fit");
        for (const Matrix* other : {&k, &v, &out, &fc1, &fc2})
            expect(other->kind == q.kind && other->group == q.group, "the matrices of a tower have to be alike");
        if (!layers_.empty())
            expect(q.kind == layers_[0].q.kind && q.group == layers_[0].q.group && fc1.rows == tower_.inner,
                   "the layers of a tower have to be alike");
        tower_.inner = fc1.rows;
        layers_.push_back({norm1.data(), norm1_bias.data(), norm2.data(), norm2_bias.data(), q, k, v, out, fc1, fc2});
        tower_.layers = layers_.data();
        tower_.num_layers = int64_t(layers_.size());
    }

    void run(const Array<float, 3>& x, const std::optional<Array<float, 4>>& looks) {
        expect(int64_t(x.shape(2)) == tower_.dim && tower_.num_layers > 0, "the tower has another width");
        expect(!looks || (int64_t(looks->shape(0)) == tower_.num_layers && looks->shape(1) == x.shape(0) &&
                          int64_t(looks->shape(2)) == tower_.heads && looks->shape(3) == x.shape(1)),
               "the room for what is looked at does not fit");
        if (x.size() == 0) return;
        const nb::gil_scoped_release others_may_run;
        const std::lock_guard one_at_a_time(workspace_lock_);
        const std::shared_lock steady(number_of_threads);
        kernels().tower_run(tower_, x.data(), int64_t(x.shape(0)), int64_t(x.shape(1)),
                            looks ? looks->data() : nullptr, workspace_);
    }

   private:
    Tower tower_;
    std::vector<TowerLayer> layers_;
    Workspace workspace_;
    std::mutex workspace_lock_;
};

}  // namespace

NB_MODULE(_native, module) {
    module.def("instruction_sets", instruction_sets);
    module.def("instruction_set", [] { return std::string(kernels().name); });
    module.def("use_instruction_set", use_instruction_set, "name"_a);
    module.def("cores", cores);
    module.def("threads", threads);
    module.def("set_threads", set_threads_between_graphs, "count"_a);
    module.def("probe_read_bandwidth", probe_read_bandwidth, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
    module.def("probe_int8_rate", probe_int8_rate, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
    nb::class_<Matrix>(module, "Matrix");
    // noconvert: what is kept or written must be the tensor itself, not a copy of another type or order.
    module.def("matrix", matrix, "data"_a.noconvert(), "rows"_a, "cols"_a, "kind"_a, "group"_a,
               "bias"_a.none().noconvert());
    module.def("matmul", matmul, "weights"_a, "x"_a, "to"_a.noconvert());
    nb::class_<DecoderHandle>(module, "Decoder")
        .def(nb::init<int64_t, int64_t, int64_t, float, const Floats1&, const Matrix&, const Matrix&,
                      const Array<const float, 2>&, const Array<const float, 2>&>(),
             "heads"_a, "kv_heads"_a, "head_dim"_a, "eps"_a, "norm"_a.noconvert(), "embedding"_a, "head"_a,
             "cosine"_a.noconvert(), "sine"_a.noconvert())
        .def("add_layer", &DecoderHandle::add_layer, "input_norm"_a.noconvert(), "post_norm"_a.noconvert(), "q"_a,
             "k"_a, "v"_a, "o"_a, "gate"_a, "up"_a, "down"_a)
        .def("step", &DecoderHandle::step, "tokens"_a, "positions"_a, "starts"_a, "cached"_a, "tables"_a,
             "embeds"_a.none(), "cache"_a.noconvert(), "wanted"_a, "logits"_a.noconvert(),
             "bias"_a.none(), "seconds"_a.none().noconvert(), "drop_after"_a, "later_cached"_a.none(),
             "pictures"_a.none());
    nb::class_<TowerHandle>(module, "Tower")
        .def(nb::init<int64_t, int64_t, float, int>(), "dim"_a, "heads"_a, "eps"_a, "activation"_a)
        .def("add_layer", &TowerHandle::add_layer, "norm1"_a.noconvert(), "norm1_bias"_a.noconvert(),
             "norm2"_a.noconvert(), "norm2_bias"_a.noconvert(), "q"_a, "k"_a, "v"_a, "out"_a, "fc1"_a, "fc2"_a)
        .def("run", &TowerHandle::run, "x"_a.noconvert(), "looks"_a.none().noconvert());
}

// Which instruction set runs: asked of the processor once, the first time a kernel is needed.

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels.hpp"

#ifdef LLAVAKIT_HAS_amx
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llavakit {

#define DECLARE(isa)               \
    namespace isa {                \
    extern const Kernels table;    \
    }
#ifdef LLAVAKIT_HAS_amx
DECLARE(amx)
#endif
#ifdef LLAVAKIT_HAS_avx512vnni
DECLARE(avx512vnni)
#endif
#ifdef LLAVAKIT_HAS_avxvnni
DECLARE(avxvnni)
#endif
#ifdef LLAVAKIT_HAS_avx2
DECLARE(avx2)
#endif
#ifdef LLAVAKIT_HAS_emulated
DECLARE(emulated)
#endif
DECLARE(portable)

namespace {

// Of this processor and its operating system, the best first. __builtin_cpu_supports counts AVX and AVX-512 only where
// the system saves their registers.
std::vector<const Kernels*> usable() {
    std::vector<const Kernels*> tables;
#ifdef LLAVAKIT_HAS_avx2
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
#ifdef LLAVAKIT_HAS_avx512vnni
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma") &&
                            __builtin_cpu_supports("f16c");
#ifdef LLAVAKIT_HAS_amx
    if (has_avx512 && may_use_amx()) tables.push_back(&amx::table);
#endif
    if (has_avx512) tables.push_back(&avx512vnni::table);
#endif
#ifdef LLAVAKIT_HAS_avxvnni
    if (has_avx2 && __builtin_cpu_supports("avxvnni")) tables.push_back(&avxvnni::table);
#endif
#ifdef LLAVAKIT_HAS_avx2
    if (has_avx2) tables.push_back(&avx2::table);
#endif
    tables.push_back(&portable::table);
#ifdef LLAVAKIT_HAS_emulated
    tables.push_back(&emulated::table);
#endif
    return tables;
}

const Kernels* named(const std::string& name, const std::string& asked_by) {
    std::string all;
    for (const Kernels* table : usable()) {
        if (name == table->name) return table;
        all += (all.empty() ? "" : ", ") + std::string(table->name);
    }
    throw std::invalid_argument(asked_by + " is '" + name + "', which this processor or this build does not have; choose one of: " + all);
}

const Kernels* chosen_at_first() {
    const char* name = std::getenv("LLAVAKIT_ISA");
    return name && *name ? named(name, "LLAVAKIT_ISA") : usable().front();
}

std::atomic<const Kernels*> in_use{nullptr};

}  // namespace

bool may_use_amx() {
#ifdef LLAVAKIT_HAS_amx
    constexpr unsigned HAS_TILES = 1u << 24, HAS_INT8 = 1u << 25;  // compilers differ in what they call these
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & HAS_TILES) || !(d & HAS_INT8)) return false;
    constexpr long ASK = 0x1023, TILES = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ASK, TILES) == 0;
#else
    return false;
#endif
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* table : usable()) names.push_back(table->name);
    return names;
}

const Kernels& kernels() {
    const Kernels* table = in_use.load(std::memory_order_acquire);
    if (!table) in_use.store(table = chosen_at_first(), std::memory_order_release);
    return *table;
}

void use_instruction_set(const std::string& name) { in_use.store(named(name, "the instruction set"), std::memory_order_release); }

}  // namespace llavakit

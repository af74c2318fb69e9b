// What the machine can do at best: how fast it reads memory, and how many integer products it makes a second.
//
// The ceilings that every kernel is measured against. They run beside each round of a benchmark, because the speed of
// a shared host changes from minute to minute.

#include "probe.hpp"

#include "kernels.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kReadSeconds = 0.15;
constexpr double kCountSeconds = 0.05;
constexpr size_t kLeastBuffer = size_t(512) << 20;
constexpr size_t kMostBuffer = size_t(4) << 30;
constexpr size_t kChunk = size_t(4) << 20;  // read between two looks at the clock
constexpr size_t kLine = 64;
constexpr size_t kAhead = 4096;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Runs `work(thread)` on so many threads, which begin together; each returns what it did, in its own unit a second.
template <class Work>
double together(int threads, const Work& work) {
    std::atomic<int> waiting{threads};
    std::vector<double> rates(threads);
    std::vector<std::thread> pool;
    for (int index = 0; index < threads; ++index)
        pool.emplace_back([&, index] {
            waiting.fetch_sub(1);
            while (waiting.load() > 0) std::this_thread::yield();
            rates[index] = work(index);
        });
    for (std::thread& thread : pool) thread.join();
    double sum = 0;
    for (double rate : rates) sum += rate;
    return sum;
}

// Far more than the caches hold, and the same for every thread.
size_t buffer_bytes() {
    long cache = -1;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return std::clamp(size_t(std::max(cache, 0L)) * 8, kLeastBuffer, kMostBuffer);
}

// All the loads are needed for the sum, so none can be left out.
uint64_t read(const std::byte* from, size_t bytes) {
    uint64_t sums[8] = {};
    for (size_t at = 0; at < bytes; at += kLine) {
        __builtin_prefetch(from + at + kAhead);
        uint64_t line[8];
        std::memcpy(line, from + at, kLine);
        for (int word = 0; word < 8; ++word) sums[word] += line[word];
    }
    uint64_t sum = 0;
    for (uint64_t one : sums) sum += one;
    return sum;
}

struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{4096}); }
};

// Each counts `turns` rounds of 12 independent products, and says how many operations (a multiplication or an
// addition is one) a round has. The empty assembly keeps the compiler from working out the result beforehand, and from
// seeing that all twelve sums are equal, so that one would do.
#define TWELVE _Pragma("GCC unroll 12") for (int lane = 0; lane < 12; ++lane)

#if defined(__x86_64__)

#ifdef LLAVAKIT_HAS_amx
// Six products of tiles instead: of 16 rows, 16 lanes and 64 bytes.
double count_amx(int64_t turns) {
    alignas(64) uint8_t config[64] = {1};
    for (int tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
    asm volatile("ldtilecfg %0" ::"m"(config));
    for (int64_t turn = 0; turn < turns; ++turn)
        asm volatile(
            "tdpbssd %tmm7, %tmm6, %tmm0\n tdpbssd %tmm7, %tmm6, %tmm1\n tdpbssd %tmm7, %tmm6, %tmm2\n"
            "tdpbssd %tmm7, %tmm6, %tmm3\n tdpbssd %tmm7, %tmm6, %tmm4\n tdpbssd %tmm7, %tmm6, %tmm5");
    asm volatile("tilerelease");
    return 6 * 2 * 16 * 16 * 64;
}
#endif

#ifdef LLAVAKIT_HAS_avx512vnni
__attribute__((target("avx512f,avx512bw,avx512vnni"))) double count_avx512_vnni(int64_t turns) {
    __m512i sums[12], left = _mm512_set1_epi8(1), right = _mm512_set1_epi8(1);
    TWELVE {
        sums[lane] = _mm512_setzero_si512();
        asm volatile("" : "+v"(sums[lane]));
    }
    for (int64_t turn = 0; turn < turns; ++turn) {
        asm volatile("" : "+v"(left), "+v"(right));
        TWELVE sums[lane] = _mm512_dpbusd_epi32(sums[lane], left, right);
    }
    TWELVE asm volatile("" ::"v"(sums[lane]));
    return 12 * 128;
}

#endif

#ifdef LLAVAKIT_HAS_avxvnni
__attribute__((target("avx2,avxvnni"))) double count_avx_vnni(int64_t turns) {
    __m256i sums[12], left = _mm256_set1_epi8(1), right = _mm256_set1_epi8(1);
    TWELVE {
        sums[lane] = _mm256_setzero_si256();
        asm volatile("" : "+x"(sums[lane]));
    }
    for (int64_t turn = 0; turn < turns; ++turn) {
        asm volatile("" : "+x"(left), "+x"(right));
        TWELVE sums[lane] = _mm256_dpbusd_avx_epi32(sums[lane], left, right);
    }
    TWELVE asm volatile("" ::"x"(sums[lane]));
    return 12 * 64;
}

#endif

#ifdef LLAVAKIT_HAS_avx2
__attribute__((target("avx2"))) double count_avx2(int64_t turns) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[12], left = _mm256_set1_epi8(1), right = _mm256_set1_epi8(1);
    TWELVE {
        sums[lane] = _mm256_setzero_si256();
        asm volatile("" : "+x"(sums[lane]));
    }
    for (int64_t turn = 0; turn < turns; ++turn) {
        TWELVE {
            asm volatile("" : "+x"(left), "+x"(right));  // or one product would do for all twelve
            const __m256i pairs = _mm256_maddubs_epi16(left, right);
            sums[lane] = _mm256_add_epi32(sums[lane], _mm256_madd_epi16(pairs, ones));
        }
    }
    TWELVE asm volatile("" ::"x"(sums[lane]));
    return 12 * 64;
}
#endif

#elif defined(__ARM_FEATURE_DOTPROD)

double count_dotprod(int64_t turns) {
    int32x4_t sums[12];
    int8x16_t left = vdupq_n_s8(1), right = vdupq_n_s8(1);
    TWELVE {
        sums[lane] = vdupq_n_s32(0);
        asm volatile("" : "+w"(sums[lane]));
    }
    for (int64_t turn = 0; turn < turns; ++turn) {
        asm volatile("" : "+w"(left), "+w"(right));
        TWELVE sums[lane] = vdotq_s32(sums[lane], left, right);
    }
    TWELVE asm volatile("" ::"w"(sums[lane]));
    return 12 * 32;
}

#endif

#if !defined(__ARM_FEATURE_DOTPROD)
double count_portable(int64_t turns) {
    int16_t left[64], right[64];
    int32_t sums[64] = {};
    std::fill_n(left, 64, int16_t(1));
    std::fill_n(right, 64, int16_t(1));
    for (int64_t turn = 0; turn < turns; ++turn) {
        asm volatile("" : : "r"(left), "r"(right) : "memory");
        for (int lane = 0; lane < 64; ++lane) sums[lane] += int32_t(left[lane]) * right[lane];
    }
    asm volatile("" : : "r"(sums) : "memory");
    return 64 * 2;
}
#endif

// The best way there is on this processor.
double count(int64_t turns) {
#ifdef LLAVAKIT_HAS_amx
    if (llavakit::may_use_amx()) return count_amx(turns);
#endif
#ifdef LLAVAKIT_HAS_avx512vnni
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni")) return count_avx512_vnni(turns);
#endif
#ifdef LLAVAKIT_HAS_avxvnni
    if (__builtin_cpu_supports("avxvnni")) return count_avx_vnni(turns);
#endif
#ifdef LLAVAKIT_HAS_avx2
    if (__builtin_cpu_supports("avx2")) return count_avx2(turns);
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    return count_dotprod(turns);
#else
    return count_portable(turns);
#endif
}

}  // namespace

extern "C" double probe_read_bandwidth(int threads) {
    const size_t bytes = buffer_bytes();
    const size_t share = bytes / threads / kChunk * kChunk;
    const std::unique_ptr<std::byte, Free> buffer(
        static_cast<std::byte*>(::operator new(share * threads + kAhead + kLine, std::align_val_t{4096})));
    std::atomic<uint64_t> sink{0};
    std::byte* const all = buffer.get();
    together(threads, [&](int index) { return std::memset(all + index * share, 1, share), 0.0; });
    return together(threads, [&](int index) {
               const std::byte* mine = all + index * share;
               uint64_t sum = 0;
               size_t done = 0;
               const Clock::time_point start = Clock::now();
               double passed = 0;
               while (passed < kReadSeconds || done < share) {
                   sum += read(mine + done % share, kChunk);
                   done += kChunk;
                   passed = seconds_since(start);
               }
               sink += sum;
               return double(done) / passed;
           }) /
           1e9;
}

extern "C" double probe_int8_rate(int threads) {
    return together(threads, [](int) {
               constexpr int64_t kTurns = 1 << 18;
               double operations = 0, passed = 0;
               const Clock::time_point start = Clock::now();
               while (passed < kCountSeconds) {
                   operations += count(kTurns) * kTurns;
                   passed = seconds_since(start);
               }
               return operations / passed;
           }) /
           1e9;
}

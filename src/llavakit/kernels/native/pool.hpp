// Threads that stay, and chunks of work handed out to them.

#pragma once

#include <algorithm>
#include <cstdint>

namespace llavakit {

// How many threads compute, the caller among them; at first as many as the process has cores.
int threads();

// Throws std::invalid_argument for less than one, and for more than `cores()`.
void set_threads(int count);

// The cores that this process may run on.
int cores();

// Which of the threads this is, from 0 to threads() - 1: a caller is 0.
int thread_number();

// Room for `bytes`, the calling thread's own until it asks again; a line of memory begins there. What was there is lost.
// A megabyte or two: where there is not even that, the program ends, since what runs on the threads cannot throw.
uint8_t* scratch(int64_t bytes) noexcept;

// Calls work(of, chunk, thread) once for every chunk from 0 to `chunks` - 1, and returns when all are done.
// Which thread gets which chunk is left to chance. Inside a chunk, and while another caller has the threads, the
// chunks are done one after the other by the caller. `work` must not throw.
void hand_out(int64_t chunks, void (*work)(void* of, int64_t chunk, int thread), void* of);

// The same for anything that is called as work(chunk, thread).
template <class Work>
inline __attribute__((always_inline)) void parallel(int64_t chunks, const Work& work) {
    hand_out(
        chunks, [](void* of, int64_t chunk, int thread) { (*static_cast<const Work*>(of))(chunk, thread); },
        const_cast<Work*>(&work));
}

// Calls work(begin, end) for stretches of all numbers below `count`, of at least `least` where there are so many. If
// nothing comes between, each thread gets a run of neighbours, one stretch after another, so that it reads memory from
// beginning to end. Stretches become shorter, each a third of what is left of a run, so that all threads end together.
template <class Work>
inline void parallel_runs(int64_t count, int64_t least, const Work& work) {
    const int64_t runs = threads(), longest = (count + runs - 1) / runs;
    if (count <= least || runs == 1) {
        if (count > 0) work(int64_t(0), count);
        return;
    }
    int64_t bounds[64] = {0}, stretches = 0;
    for (int64_t done = 0; done < longest; bounds[++stretches] = done)
        done = stretches == 62 ? longest : std::min(longest, done + std::max(least, (longest - done + 2) / 3));
    parallel(runs * stretches, [&](int64_t chunk, int) {
        const int64_t first = chunk % runs * longest, last = std::min(first + longest, count);
        const int64_t begin = first + bounds[chunk / runs], end = std::min(first + bounds[chunk / runs + 1], last);
        if (begin < end) work(begin, end);
    });
}

}  // namespace llavakit

// Threads that stay, and chunks of work handed out to them.

#pragma once

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

}  // namespace llavakit

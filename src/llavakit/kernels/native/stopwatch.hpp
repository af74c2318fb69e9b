// Where the time of a step goes: the seconds of its parts, added up for whoever asks. kernels/graph.py has their names.

#pragma once

#include <chrono>

namespace llavakit {

enum Part : int { EMBEDDING, ROUNDING, QKV, CACHE, ATTENTION, ATTENTION_OUT, GATE_UP, DOWN, HEAD, NUM_PARTS };

class Stopwatch {
   public:
    // Null, where nobody asks.
    explicit Stopwatch(double* seconds) : seconds_(seconds) {
        if (seconds_) last_ = Clock::now();
    }

    // What passed since the last one was for `part`.
    void lap(int part) {
        if (!seconds_) return;
        const Clock::time_point now = Clock::now();
        seconds_[part] += std::chrono::duration<double>(now - last_).count();
        last_ = now;
    }

   private:
    using Clock = std::chrono::steady_clock;
    double* seconds_;
    Clock::time_point last_;
};

}  // namespace llavakit

// A job is published as one number, its age and how many of its chunks nobody has taken yet. A thread takes a chunk by
// making that number one smaller, so nobody waits for a thread that comes late or not at all: only for chunks taken.

#include "pool.hpp"

#include "graph.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace llavakit {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto AWAKE = std::chrono::microseconds(80);    // how long a thread without work looks for some
constexpr auto PATIENT = std::chrono::microseconds(20);  // how long a caller waits before it gives its core to others
constexpr int LOOKS = 32;                                // between two looks at the clock

thread_local int number = 0;
thread_local bool in_chunk = false;

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Pool {
   public:
    explicit Pool(int count) : count_(count) {}
    ~Pool() { stop(); }

    bool is_taken() const { return taken_; }

    int count() const { return count_.load(std::memory_order_relaxed); }

    void resize(int count) {
        while (taken_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
        stop();
        count_ = count;
        taken_.store(false, std::memory_order_release);
    }

    void run(int64_t chunks, void (*work)(void*, int64_t, int), void* of) {
        if (chunks <= 1 || count() == 1 || in_chunk || chunks > UINT32_MAX ||
            taken_.exchange(true, std::memory_order_acquire))
            return alone(chunks, work, of);
        start();
        work_ = work, of_ = of, chunks_ = uint32_t(chunks);
        done_.store(0, std::memory_order_relaxed);
        age_++;
        left_.store(uint64_t(age_) << 32 | uint32_t(chunks), std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) > 0) wake(chunks - 1);
        take_chunks();
        wait_for_others();
        taken_.store(false, std::memory_order_release);
    }

   private:
    static void alone(int64_t chunks, void (*work)(void*, int64_t, int), void* of) {
        const bool before = in_chunk;
        in_chunk = true;
        for (int64_t chunk = 0; chunk < chunks; chunk++) work(of, chunk, number);
        in_chunk = before;
    }

    void take_chunks() {
        in_chunk = true;
        uint64_t left = left_.load(std::memory_order_acquire);
        while (uint32_t(left) > 0) {
            if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
            // With a chunk in hand the job cannot end, so what it says is steady.
            work_(of_, chunks_ - uint32_t(left), number);
            done_.fetch_add(1, std::memory_order_release);
            left = left_.load(std::memory_order_acquire);
        }
        in_chunk = false;
    }

    void wait_for_others() {
        if (done_.load(std::memory_order_acquire) == chunks_) return;
        const auto until = Clock::now() + PATIENT;
        for (int look = 1; done_.load(std::memory_order_acquire) != chunks_; look++) {
            pause();
            if (look % LOOKS == 0 && Clock::now() > until) std::this_thread::yield();
        }
    }

    bool has_work() const { return uint32_t(left_.load(std::memory_order_seq_cst)) > 0 || ending_; }

    void live(int as) {
        number = as;
        while (!ending_) {
            take_chunks();
            const auto until = Clock::now() + AWAKE;
            for (int look = 1; !has_work(); look++) {
                pause();
                if (look % LOOKS == 0 && Clock::now() > until) sleep();
            }
        }
    }

    void sleep() {
        std::unique_lock lock(mutex_);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        work_to_do_.wait(lock, [this] { return has_work(); });
        asleep_.fetch_sub(1, std::memory_order_seq_cst);
    }

    void wake(int64_t most) {
        { std::lock_guard lock(mutex_); }
        if (most >= count() - 1) return work_to_do_.notify_all();
        for (int64_t i = 0; i < most; i++) work_to_do_.notify_one();
    }

    // Signals are for the threads of the program, not for these.
    void start() {
        if (!workers_.empty()) return;
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            for (int i = 1; i < count(); i++) workers_.emplace_back(&Pool::live, this, i);
        } catch (const std::system_error&) {
            // The system gives no more threads: those there are do the work, if need be the caller alone.
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void stop() {
        {
            std::lock_guard lock(mutex_);
            ending_ = true;
        }
        work_to_do_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        workers_.clear();
        ending_ = false;
    }

    std::atomic<int> count_;
    std::vector<std::thread> workers_;
    std::atomic<bool> taken_{false}, ending_{false};

    void (*work_)(void*, int64_t, int) = nullptr;
    void* of_ = nullptr;
    uint32_t chunks_ = 0, age_ = 0;
    alignas(64) std::atomic<uint64_t> left_{0};  // age of the job << 32 | chunks that nobody has taken
    alignas(64) std::atomic<uint32_t> done_{0};

    alignas(64) std::atomic<int> asleep_{0};
    std::mutex mutex_;
    std::condition_variable work_to_do_;
};

// The pool of this process. A child after fork() has none of the threads, so it gets a pool of its own, and leaves the
// parent's as it was.
struct Holder {
    Pool* pool = new Pool(cores());
    Holder() { pthread_atfork(nullptr, nullptr, renew); }
    ~Holder() {
        if (!pool->is_taken()) delete pool;  // a thread that still computes ends with the process
    }
    static void renew();
};

Holder& holder() {
    static Holder holder;
    return holder;
}

void Holder::renew() {
    number = 0, in_chunk = false;
    holder().pool = new Pool(holder().pool->count());
}

}  // namespace

int cores() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    const int known = int(std::thread::hardware_concurrency());
    return known > 0 ? known : 1;
}

int threads() { return holder().pool->count(); }

int thread_number() { return number; }

uint8_t* scratch(int64_t bytes) noexcept {
    thread_local Workspace mine;
    return mine.reserve(size_t(bytes));
}

void set_threads(int count) {
    if (count < 1) throw std::invalid_argument("the number of threads is " + std::to_string(count) + "; give 1 or more");
    if (count > cores())
        throw std::invalid_argument(std::to_string(count) + " threads are more than the " + std::to_string(cores()) +
                                    " cores that this process may use; give at most " + std::to_string(cores()));
    holder().pool->resize(count);
}

void hand_out(int64_t chunks, void (*work)(void*, int64_t, int), void* of) { holder().pool->run(chunks, work, of); }

}  // namespace llavakit

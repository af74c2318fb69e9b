#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include <sys/wait.h>

#include "check.hpp"
#include "pool.hpp"

using namespace llavakit;

static std::vector<int> times_done(int64_t chunks) {
    std::unique_ptr<std::atomic<int>[]> times(new std::atomic<int>[chunks + 1]());
    parallel(chunks, [&](int64_t chunk, int thread) {
        CHECK(thread == thread_number() && 0 <= thread && thread < threads());
        times[chunk]++;
    });
    return {times.get(), times.get() + chunks};
}

TEST(every_chunk_is_done_once) {
    for (int round = 0; round < 3000; round++)
        for (int count : times_done(round % 67)) CHECK(count == 1);
}

TEST(runs_leave_nothing_out) {
    for (const int64_t count : {0, 1, 2, 3, 7, 64, 65, 1000, 123457})
        for (const int64_t least : {1, 2, 5, 64}) {
            std::unique_ptr<std::atomic<int>[]> times(new std::atomic<int>[count + 1]());
            parallel_runs(count, least, [&](int64_t begin, int64_t end) {
                CHECK(0 <= begin && begin < end && end <= count);
                for (int64_t at = begin; at < end; at++) times[at]++;
            });
            for (int64_t at = 0; at < count; at++) CHECK(times[at] == 1);
        }
}

TEST(threads_that_sleep_wake_up) {
    for (int round = 0; round < 30; round++) {
        std::this_thread::sleep_for(std::chrono::microseconds(round % 3 * 100));
        for (int count : times_done(50)) CHECK(count == 1);
    }
}

TEST(work_in_work_and_from_many_callers) {
    std::atomic<int64_t> sum{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; caller++)
        callers.emplace_back([&] {
            for (int round = 0; round < 200; round++)
                parallel(8, [&](int64_t, int) { parallel(3, [&](int64_t chunk, int) { sum += chunk; }); });
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(sum == 4 * 200 * 8 * 3);
}

TEST(the_number_of_threads_can_change) {
    for (int count : {1, cores(), 1, cores()}) {
        set_threads(count);
        CHECK(threads() == count);
        for (int times : times_done(40)) CHECK(times == 1);
    }
    for (int count : {0, -3, cores() + 1}) {
        bool refused = false;
        try {
            set_threads(count);
        } catch (const std::invalid_argument& error) {
            refused = std::string(error.what()).find(std::to_string(count)) != std::string::npos;
        }
        CHECK(refused && threads() == cores());
    }
}

#if !defined(__SANITIZE_THREAD__)  // which knows no threads in a child after fork
TEST(a_child_has_threads_of_its_own) {
    times_done(40);
    const pid_t child = fork();
    if (child == 0) {
        for (int round = 0; round < 20; round++)
            for (int times : times_done(40))
                if (times != 1) _exit(1);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (int times : times_done(40)) CHECK(times == 1);
}
#endif

// The machine's ceilings, measured; each takes some tenths of a second.

#pragma once

// GB read from memory a second, by so many threads, out of a buffer far larger than the caches (at least 512 MiB).
extern "C" double probe_read_bandwidth(int threads);

// Products of 8-bit integers, summed in 32 bits, a second: 1e9 operations, where a multiplication and an addition are
// two. With VPDPBUSD where the processor has it, and else with what it has.
extern "C" double probe_int8_rate(int threads);

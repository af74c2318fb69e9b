// What hopper.cuh is on a card, for processors: each thread of a program is a fiber, and all of them take turns. So
// persistent.cu runs where there is no card, and what it may not do there is found: copies that are not aligned, stages
// that are filled before they were used up, and threads that wait for one another for ever.

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int64_t i64;

struct alignas(16) Words {
  u32 word[4];
};

#define DEVICE inline
#define KERNEL static void
#define __grid_constant__

struct Gate;

struct Copy {
  void* goal;
  const void* place;
  u32 bytes;
  Gate* gate;
};

struct Meeting {
  int arrived = 0, times = 0;
};

struct Warp {
  Meeting meeting;
  u32 values[32];
};

struct Program {
  std::vector<char> memory;
  Meeting meeting, of_all;
  Warp warps[2 * WARPS];
  std::vector<Copy> copies;  // that are not made yet
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  Program* program;
  int thread, number;
  bool is_done = false;
};

static Fiber* now;
static ucontext_t scheduler;
static int number_of_programs;
static bool has_moved;  // whether anyone did anything but wait
static const char* fault;

static void yield() { swapcontext(&now->context, &scheduler); }

static void demand(bool is_so, const char* what) {
  if (is_so) return;
  if (!fault) fault = what;
  for (;;) yield();
}

static bool is_aligned(const void* place) { return reinterpret_cast<uintptr_t>(place) % 16 == 0; }

static void wait(Meeting& meeting, int size) {
  int times = meeting.times;
  has_moved = true;
  if (++meeting.arrived == size) {
    meeting.arrived = 0;
    ++meeting.times;
  }
  while (meeting.times == times) yield();
}

static char* shared() {
  uintptr_t place = reinterpret_cast<uintptr_t>(now->program->memory.data());
  return reinterpret_cast<char*>((place + 127) / 128 * 128);
}
static int thread() { return now->thread; }
static int program() { return now->number; }
static int programs() { return number_of_programs; }

static Warp& warp_here() { return now->program->warps[thread() / 32]; }
static void wait_for_program() { wait(now->program->meeting, WARPS * 32); }
static void wait_for_all() { wait(now->program->of_all, 2 * WARPS * 32); }
static void wait_for_warp() { wait(warp_here().meeting, 32); }
// All of a warp ask for it together, as on a card.
static int warp() {
  wait_for_warp();
  return thread() / 32;
}
static bool is_elected() {
  wait_for_warp();
  return thread() % 32 == 0;
}
template <class Number>
static Number exchange(Number value, int other) {
  static_assert(sizeof(Number) == 4, "what a warp exchanges");
  memcpy(&warp_here().values[thread() % 32], &value, 4);
  wait_for_warp();
  memcpy(&value, &warp_here().values[thread() % 32 ^ other], 4);
  wait_for_warp();
  return value;
}

static float exp2_of(float x) { return exp2f(x); }
static float inverse_root(float x) { return 1 / sqrtf(x); }

static float of_half(u32 bits) {
  u16 half = u16(bits);
  _Float16 number;
  memcpy(&number, &half, 2);
  return float(number);
}

static float float_of(u32 bits) {
  float number;
  memcpy(&number, &bits, 4);
  return number;
}

#if IS_HALF
static float low(u32 word) { return of_half(word & 0xFFFF); }
static float high(u32 word) { return of_half(word >> 16); }
static u32 rounded(float number) {
  _Float16 half = _Float16(number);
  u16 bits;
  memcpy(&bits, &half, 2);
  return bits;
}
#else
static float low(u32 word) { return float_of(word << 16); }
static float high(u32 word) { return float_of(word & 0xFFFF0000); }
static u32 rounded(float number) {
  u32 bits;
  memcpy(&bits, &number, 4);
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
#endif
static u32 pair(float one, float two) { return rounded(one) | rounded(two) << 16; }

template <class One, class Two>
static int dots(u32 one, u32 two, int sum) {
  for (int i = 0; i < 4; ++i) sum += int(One(one >> 8 * i)) * int(Two(two >> 8 * i));
  return sum;
}
static int add_dots_ss(u32 one, u32 two, int sum) { return dots<int8_t, int8_t>(one, two, sum); }
static int add_dots_su(u32 one, u32 two, int sum) { return dots<int8_t, u8>(one, two, sum); }
static int add_dots_us(u32 one, u32 two, int sum) { return dots<u8, int8_t>(one, two, sum); }
static int add_dots_uu(u32 one, u32 two, int sum) { return dots<u8, u8>(one, two, sum); }

static Words fresh_words(const void* place) {
  demand(is_aligned(place), "16 bytes are read that are not aligned");
  return *static_cast<const Words*>(place);
}
static u32 fresh_number(const u16* place) { return *place; }

static void meet(u32* arrived, u32 goal) {
  wait_for_program();
  if (thread() == 0) {
    ++*arrived;
    has_moved = true;
    while (*arrived < goal) yield();
  }
  wait_for_program();
}
static void part(u32* arrived, u32 last) {
  if (thread() == 0 && ++*arrived == last) *arrived = 0;
}

struct Gate {
  u16 turns, has_arrived;
  int bytes;
};

static void begin(Gate* gate) { *gate = {0, 0, 0}; }
static void gates_have_begun() {}
static void open_if(Gate* gate) {
  if (!gate->has_arrived || gate->bytes) return;
  gate->has_arrived = 0;
  ++gate->turns;
  has_moved = true;
}
static void arrive_expecting(Gate* gate, u32 bytes) {
  demand(!gate->has_arrived, "a stage is filled before it was used up");
  gate->has_arrived = 1;
  gate->bytes += int(bytes);
  open_if(gate);
}
static void arrive(Gate* gate) { arrive_expecting(gate, 0); }

static void make(const Copy& copy) {
  memcpy(copy.goal, copy.place, copy.bytes);
  copy.gate->bytes -= int(copy.bytes);
  open_if(copy.gate);
}

// Copies are made as early as they may be; or, where IS_LATE says so, as late as they may be.
static void copy(void* goal, const void* place, u32 bytes, Gate* gate) {
  demand(is_aligned(goal) && is_aligned(place) && bytes % 16 == 0, "a copy is not aligned");
  demand(gate->bytes >= int(bytes), "more is copied than is expected");
  if (IS_LATE) now->program->copies.push_back({goal, place, bytes, gate});
  else make({goal, place, bytes, gate});
}
static void wait(Gate* gate, u32 turn) {
  std::vector<Copy> copies;
  copies.swap(now->program->copies);
  for (const Copy& copy : copies) {
    if (copy.gate == gate) make(copy);
    else now->program->copies.push_back(copy);
  }
  while ((gate->turns & 1u) == turn) yield();
}
static void writes_before_copies() {}

static void begin(const void* model, const i64* plan);  // calls the kernel, which is not known yet

static const void* given_model;
static const i64* given_plan;

static void run() {
  begin(given_model, given_plan);
  now->is_done = true;
  has_moved = true;
  swapcontext(&now->context, &scheduler);
}

// What went wrong; nothing where all came to an end.
extern "C" const char* launch(const void* model, const i64* plan, int programs, int shared_bytes) {
  fault = nullptr, given_model = model, given_plan = plan, number_of_programs = programs;
  std::vector<Program> all(programs);
  std::vector<Fiber> fibers(programs * 2 * WARPS * 32);
  for (int i = 0; i < int(fibers.size()); ++i) {
    Fiber& fiber = fibers[i];
    fiber.number = i / (2 * WARPS * 32), fiber.thread = i % (2 * WARPS * 32), fiber.program = &all[fiber.number];
    fiber.program->memory.assign(shared_bytes + 128, 0x7B);
    fiber.stack.resize(64 << 10);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run, 0);
  }
  for (has_moved = true; has_moved;) {
    has_moved = false;
    bool is_done = true;
    for (Fiber& fiber : fibers) {
      if (fiber.is_done) continue;
      is_done = false;
      now = &fiber;
      swapcontext(&scheduler, &fiber.context);
    }
    if (is_done) break;
    if (!has_moved && !fault) fault = "threads wait for one another for ever";
  }
  return fault;
}

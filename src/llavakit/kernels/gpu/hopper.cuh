// What persistent.cu needs of a card: its types, its instructions, and how its threads wait for one another. The tests
// have the same for processors. There are no headers to include where this is compiled.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct alignas(16) Words {
  u32 word[4];
};

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(2 * WARPS * 32, 1)

extern __shared__ __align__(128) char shared_memory[];

DEVICE char* shared() { return shared_memory; }
DEVICE int thread() { return threadIdx.x; }
// The same for a whole warp, and known to be so.
DEVICE int warp() { return __shfl_sync(~0u, threadIdx.x / 32, 0); }
DEVICE int program() { return blockIdx.x; }
DEVICE int programs() { return gridDim.x; }

// Of the warps that compute, and of all.
DEVICE void wait_for_program() { asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory"); }
DEVICE void wait_for_all() { __syncthreads(); }
DEVICE void wait_for_warp() { __syncwarp(); }
// For one lane of a warp, all of which ask.
DEVICE bool is_elected() {
  u32 is_me;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(is_me) :: "memory");
  return is_me;
}
template <class Number>
DEVICE Number exchange(Number value, int other) {
  return __shfl_xor_sync(~0u, value, other);
}

DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

DEVICE float inverse_root(float x) { return rsqrtf(x); }

DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }

DEVICE float of_half(u32 bits) {
  float number;
  asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"((u16)bits));
  return number;
}

// Two numbers of the model's type in a word, and one.
#if IS_HALF
DEVICE float low(u32 word) { return of_half(word & 0xFFFF); }
DEVICE float high(u32 word) { return of_half(word >> 16); }
DEVICE u32 pair(float one, float two) {
  u32 word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(two), "f"(one));
  return word;
}
#else
DEVICE float low(u32 word) { return float_of(word << 16); }
DEVICE float high(u32 word) { return float_of(word & 0xFFFF0000); }
DEVICE u32 pair(float one, float two) {
  u32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(two), "f"(one));
  return word;
}
#endif

// Sums of four products of bytes, each with a sign or without one.
#define ADD_DOTS(NAME, TYPES)                                                   \
  DEVICE int NAME(u32 one, u32 two, int sum) {                                  \
    asm("dp4a." TYPES " %0, %1, %2, %0;" : "+r"(sum) : "r"(one), "r"(two));     \
    return sum;                                                                 \
  }
ADD_DOTS(add_dots_ss, "s32.s32")
ADD_DOTS(add_dots_su, "s32.u32")
ADD_DOTS(add_dots_us, "u32.s32")
ADD_DOTS(add_dots_uu, "u32.u32")
#undef ADD_DOTS

// What other processors wrote in this launch; the nearest cache may hold something older.
DEVICE Words fresh_words(const void* place) {
  Words w;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w.word[0]), "=r"(w.word[1]), "=r"(w.word[2]), "=r"(w.word[3]) : "l"(place) : "memory");
  return w;
}
DEVICE u32 fresh_number(const u16* place) {
  u16 bits;
  asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(bits) : "l"(place) : "memory");
  return bits;
}

// All programs meet: whoever comes counts up, and waits until `goal` have come.
DEVICE void meet(u32* arrived, u32 goal) {
  wait_for_program();
  if (threadIdx.x == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
    u32 found;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(arrived) : "memory");
    while (found < goal);
  }
  wait_for_program();
}

// Whoever comes last leaves the counter as it was before the launch.
DEVICE void part(u32* arrived, u32 last) {
  if (threadIdx.x == 0 && atomicAdd(arrived, 1) + 1 == last) atomicExch(arrived, 0);
}

// Copies from memory into shared memory go on by themselves, and report to a gate. It opens when so many threads have
// arrived, and as many bytes as one of them expects; then it is closed again, for the next.
typedef u64 Gate;

DEVICE u32 shared_address(const void* place) { return (u32)__cvta_generic_to_shared(place); }

DEVICE void begin(Gate* gate) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(gate)) : "memory");
}
DEVICE void gates_have_begun() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void arrive(Gate* gate) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(gate)) : "memory");
}
DEVICE void arrive_expecting(Gate* gate, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               ::"r"(shared_address(gate)), "r"(bytes) : "memory");
}

// `turn` is 0 for the first time that the gate opens, then 1, then 0 again.
DEVICE void wait(Gate* gate, u32 turn) {
  u32 is_open;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(is_open) : "r"(shared_address(gate)), "r"(turn) : "memory");
  } while (!is_open);
}

DEVICE void copy(void* goal, const void* place, u32 bytes, Gate* gate) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(shared_address(goal)), "l"(place), "r"(bytes), "r"(shared_address(gate)) : "memory");
}

// What this thread wrote into shared memory comes before what is copied there next.
DEVICE void writes_before_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A token through the whole decoder in one launch, with as many programs as the card has processors.
//
// Weights do not depend on the token, so nothing has to wait with reading them. Each warp that computes has another, its
// caller, that does nothing but go through all that it will need, over all layers, and call for the next piece as soon as
// there is room in shared memory. Where programs have to wait for one another (five times a layer), the memory goes on.
//
// No more than AHEAD pieces of a warp are under way at any time: just so many as keep the memory busy. With more,
// whatever else is read would stand in line behind them.
//
// Where weights are codes, activations become whole numbers of 16 bits, with a scale for 128 of them: two bytes, each
// multiplied with codes four at a time. That is exact, and finer than bfloat16.
//
// Constants given by the host: LAYERS, DROP_AFTER, DIM, INNER, HEADS, KV_HEADS, HEAD_DIM, BLOCK, HEADER, SPLITS, WARPS,
// STAGES, AHEAD, PIECE, SCALES, IS_HALF.

constexpr int THREADS = WARPS * 32, GROUP = HEADS / KV_HEADS, QUERY = HEADS * HEAD_DIM;
constexpr int STAGE = 4 * PIECE + SCALES;  // bytes: a piece of four rows of a matrix, and behind them their scales
constexpr int AT_ONCE = 512;               // that a warp reads of a row
constexpr int TOKENS = PIECE / HEAD_DIM < BLOCK ? PIECE / HEAD_DIM : BLOCK;  // whose keys and values fill one
constexpr int LARGEST = DIM > INNER ? (DIM > QUERY ? DIM : QUERY) : (INNER > QUERY ? INNER : QUERY);
DEVICE constexpr int padded(int columns) { return (columns + 255) / 256 * 256; }  // to whole chunks of codes
constexpr int WIDEST = padded(LARGEST);
constexpr int PART = HEAD_DIM + 4;  // of attention: sums of a head, their greatest score and total weight, and padding
constexpr int ATTENTION_PART = GROUP * PART;
constexpr int ACTIVATIONS = 2 * WIDEST > 4 * WARPS * ATTENTION_PART ? 2 * WIDEST : 4 * WARPS * ATTENTION_PART;
constexpr float LOG2_E = 1.44269504f;
constexpr int EIGHTS = HEAD_DIM / 64, ROW = HEAD_DIM * 2;  // of eight lanes with eight channels each; bytes
static_assert(HEAD_DIM % 64 == 0, "eight lanes have eight channels each, once or several times");
static_assert(TOKENS % 4 == 0 && BLOCK % TOKENS == 0, "a warp takes four tokens at a time, and a block some times");

// Numbers of `bits` each. Codes (GpuMatrix) have float16 scales for groups of 1 << `shift` columns, and two rows have
// `pair_bytes` of them.
struct Matrix {
  const char *data, *scales;
  int rows, row_bytes, pair_bytes, bits, shift;
};

struct Layer {
  const u16 *input_norm, *output_norm, *heads_bias;
  u16 *keys, *values;
  Matrix matrices[4];  // to heads and from them, to what is inside and from it
};

struct Model {
  const u16 *table, *norm, *bias;
  const float *cosine, *sine;
  u16 *query, *hidden, *inner, *logits;
  float* partial;
  u32* arrived;
  i64 slots;
  double eps;
  Matrix head;
  Layer layers[LAYERS];
};

// A row of a plan.
struct Token {
  i64 number, position;
  int place, later;
  const i64* blocks;

  DEVICE explicit Token(const i64* plan)
      : number(plan[0]), position(plan[1]), place(int(plan[2])), later(int(plan[3])), blocks(plan + HEADER) {}
};

enum Kind { TO_HEADS, ATTENTION, FROM_HEADS, TO_INNER, FROM_INNER, KINDS };

// The phases of a token: five a layer, and the scores.
struct Phase {
  int number;

  DEVICE int layer() const { return number / KINDS; }
  DEVICE bool is_scores() const { return number == LAYERS * KINDS; }
  DEVICE bool is(Kind kind) const { return !is_scores() && number % KINDS == kind; }

  DEVICE const Matrix& matrix(const Model& model) const {
    const int kind = number % KINDS;
    return is_scores() ? model.head : model.layers[layer()].matrices[kind > ATTENTION ? kind - 1 : 0];
  }
};

// Four rows of a matrix that are multiplied together: `first` and the next, and as many `apart` rows behind: both
// channels of a pair that is turned, a gate and what it gates, or simply the next.
struct Rows {
  int first, apart;
};

DEVICE Rows rows_of(Phase phase, int quad) {
  if (phase.is(TO_HEADS)) {
    constexpr int HALF = HEAD_DIM / 2, QUADS = HALF / 2;
    return {quad / QUADS * HEAD_DIM + quad % QUADS * 2, HALF};
  }
  if (phase.is(TO_INNER)) return {quad * 2, INNER};
  return {quad * 4, 2};
}

// Of the tokens of a sequence, and of a part of them, as a layer sees them; in steps of TOKENS.
struct Steps {
  int place, start, end;

  DEVICE Steps(const Token& token, Phase phase, int split)
      : place(phase.layer() < DROP_AFTER ? token.place : token.later) {
    const int all = place / TOKENS + 1, share = (all + SPLITS - 1) / SPLITS;
    start = split * share;
    end = start + share < all ? start + share : all;
  }
};

DEVICE i64 slot_of(const Token& token, int place) { return token.blocks[place / BLOCK] * BLOCK + place % BLOCK; }

// What a program has of a product: quads, shared out among programs one by one, going on in the next phase where the
// last one ended. Their pieces are shared out among its warps, so that all of these are busy until the end.
struct Share {
  int first, quads, pieces;

  DEVICE Share(const Matrix& matrix, int& shift) : pieces((matrix.row_bytes + PIECE - 1) / PIECE) {
    const int all = (matrix.rows + 3) / 4, mine = program() - shift;
    first = mine < 0 ? mine + programs() : mine;
    quads = first < all ? (all - first - 1) / programs() + 1 : 0;
    shift = (shift + all) % programs();
  }
  DEVICE int size() const { return quads * pieces; }
  DEVICE int quad(int index) const { return first + index * programs(); }
};

// The stages of a warp, each filled by its caller and emptied again and again: `use` counts how often any was, for
// either of the two by itself.
struct Ring {
  char* stages;
  Gate *filled, *emptied;
  u32 use;

  DEVICE explicit Ring(int warp) : stages(shared() + warp * STAGES * STAGE), use(0) {
    filled = reinterpret_cast<Gate*>(shared() + WARPS * STAGES * STAGE) + warp * 2 * STAGES;
    emptied = filled + STAGES;
  }
  DEVICE static constexpr int bytes() { return WARPS * STAGES * (STAGE + 2 * int(sizeof(Gate))); }

  DEVICE void begin_all() const {
    for (int gate = 0; gate < 2 * STAGES; ++gate) begin(filled + gate);
    gates_have_begun();
  }

  DEVICE char* stage() const { return stages + use % STAGES * STAGE; }
  DEVICE Gate* gate() const { return filled + use % STAGES; }

  DEVICE void wait_until_filled() const { wait(gate(), use / STAGES & 1); }
  DEVICE void empty() {
    wait_for_warp();
    if (thread() % 32 == 0) arrive(emptied + use % STAGES);
    ++use;
  }

  DEVICE void wait_until_it_may_be_filled() const {
    if (use >= STAGES) wait(emptied + use % STAGES, use / STAGES & 1 ^ 1);
    if (use >= AHEAD) wait(filled + (use - AHEAD) % STAGES, (use - AHEAD) / STAGES & 1);
  }
};

struct Caller {
  const Model& model;
  const Token& token;
  Ring ring;

  DEVICE void call_all(int warp) {
    int shift = 0;
    for (Phase phase{0}; phase.number <= LAYERS * KINDS; ++phase.number) {
      if (phase.is(ATTENTION)) {
        for (int item = program(); item < KV_HEADS * SPLITS; item += programs()) {
          const Steps steps(token, phase, item % SPLITS);
          for (int step = steps.start + warp; step < steps.end; step += WARPS) call_tokens(phase, item / SPLITS, step);
        }
      } else {
        const Matrix matrix = phase.matrix(model);
        const Share share(matrix, shift);
        for (int piece = warp; piece < share.size(); piece += WARPS) {
          call_rows(matrix, rows_of(phase, share.quad(piece / share.pieces)), piece % share.pieces * PIECE);
        }
      }
    }
  }

  DEVICE void call_tokens(Phase phase, int head, int step) {
    const Layer& layer = model.layers[phase.layer()];
    const i64 place = (head * model.slots + slot_of(token, step * TOKENS)) * HEAD_DIM;
    ring.wait_until_it_may_be_filled();
    if (is_elected()) {
      char* stage = ring.stage();
      Gate* gate = ring.gate();
      arrive_expecting(gate, 2 * TOKENS * ROW);
      copy(stage, layer.keys + place, TOKENS * ROW, gate);
      copy(stage + TOKENS * ROW, layer.values + place, TOKENS * ROW, gate);
    }
    wait_for_warp();
    ++ring.use;
  }

  DEVICE void call_rows(const Matrix& matrix, Rows rows, int at) {
    const int left = matrix.row_bytes - at, bytes = left < PIECE ? left : PIECE;
    const int chunk = matrix.bits == 4 ? 7 : 8, words = 128 >> matrix.shift;  // of 1 << chunk bytes
    const int scales = matrix.bits == 16 ? 0 : ((bytes >> chunk) * words * 8 + 15) / 16 * 16;
    const char* data = matrix.data + at;
    const bool is_end = rows.first + rows.apart + 1 >= matrix.rows;  // maybe with rows beyond it
    ring.wait_until_it_may_be_filled();
    if (is_elected()) {
      char* stage = ring.stage();
      Gate* gate = ring.gate();
      arrive_expecting(gate, 4 * bytes + 2 * scales);
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const int row = is_end ? last(matrix, rows.first + pair * rows.apart) : rows.first + pair * rows.apart;
        const char* place = data + i64(row) * matrix.row_bytes;
        if (matrix.row_bytes == PIECE && !is_end) {  // a row and the next lie side by side
          copy(stage + 2 * pair * PIECE, place, 2 * PIECE, gate);
        } else {
          copy(stage + 2 * pair * PIECE, place, bytes, gate);
          copy(stage + (2 * pair + 1) * PIECE, data + i64(last(matrix, row + 1)) * matrix.row_bytes, bytes, gate);
        }
        if (scales) {
          copy(stage + 4 * PIECE + pair * (SCALES / 2),
               matrix.scales + i64(row / 2) * matrix.pair_bytes + (at >> chunk) * words * 8, scales, gate);
        }
      }
    }
    wait_for_warp();
    ++ring.use;
  }

  DEVICE static int last(const Matrix& matrix, int row) { return row < matrix.rows ? row : matrix.rows - 1; }
};

DEVICE Words words_at(const void* place) { return *static_cast<const Words*>(place); }

DEVICE void numbers_of(const Words& words, float (&numbers)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    numbers[2 * i] = low(words.word[i]);
    numbers[2 * i + 1] = high(words.word[i]);
  }
}

DEVICE float sum_of_warp(float value) {
#pragma unroll
  for (int other = 16; other; other /= 2) value += exchange(value, other);
  return value;
}

// How often all threads take eight columns each.
DEVICE constexpr int times(int columns) { return (padded(columns) + 8 * THREADS - 1) / (8 * THREADS); }

// Activations in shared memory, as a product with a matrix of so many bits takes them.
struct Activations {
  char* numbers;  // of the model's type; or high bytes, and behind `width` of them low ones
  float* scales;
  int* sums;          // of 16 columns each, of whole numbers
  float* warps_sums;  // room for one of each warp

  // Eight columns of a thread, of which 16 threads that follow one another have a group.
  DEVICE void put(int bits, int width, int column, const float (&x)[8]) {
    if (bits == 16) {
      Words words;
#pragma unroll
      for (int i = 0; i < 4; ++i) words.word[i] = pair(x[2 * i], x[2 * i + 1]);
      if (column < width) *reinterpret_cast<Words*>(numbers + column * 2) = words;
      return;
    }
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(x[i]));
#pragma unroll
    for (int other = 8; other; other /= 2) largest = fmaxf(largest, exchange(largest, other));
    const float times = largest > 1e-30f ? 32512.0f / largest : 0.0f;
    u32 highs[2] = {0, 0}, lows[2] = {0, 0};
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int number = int(rintf(x[i] * times));
      highs[i / 4] |= (u32(number) >> 8 & 0xFF) << i % 4 * 8;
      lows[i / 4] |= (u32(number) & 0xFF) << i % 4 * 8;
      sum += number;
    }
    sum += exchange(sum, 1);
    if (column >= width) return;
    u32* high_words = reinterpret_cast<u32*>(numbers + column);
    u32* low_words = reinterpret_cast<u32*>(numbers + width + column);
    high_words[0] = highs[0], high_words[1] = highs[1];
    low_words[0] = lows[0], low_words[1] = lows[1];
    if (column % 16 == 0) sums[column / 16] = sum;
    if (column % 128 == 0) scales[column / 128] = largest / 32512.0f;
  }

  template <int NUMBER>
  DEVICE static int width(int bits) {
    return bits == 16 ? NUMBER : padded(NUMBER);
  }

  DEVICE float sum_of_program(float value) {
    value = sum_of_warp(value);
    if (thread() % 32 == 0) warps_sums[thread() / 32] = value;
    wait_for_program();
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) sum += warps_sums[warp];
    return sum;
  }

  // `numbers` gives the eight at a column.
  template <int NUMBER, class Numbers>
  DEVICE void put_all(int bits, Numbers numbers) {
    constexpr int TIMES = times(NUMBER);
    float x[TIMES][8];
#pragma unroll
    for (int i = 0; i < TIMES; ++i) {
      const int column = (i * THREADS + thread()) * 8;
#pragma unroll
      for (int j = 0; j < 8; ++j) x[i][j] = 0;
      if (column < NUMBER) numbers(column, x[i]);
    }
#pragma unroll
    for (int i = 0; i < TIMES; ++i) put(bits, width<NUMBER>(bits), (i * THREADS + thread()) * 8, x[i]);
    wait_for_program();
  }

  // RMSNorm.
  DEVICE void put_norm(int bits, const u16* hidden, const u16* weights, float eps) {
    constexpr int TIMES = times(DIM);
    Words words[TIMES], weight_words[TIMES];
#pragma unroll
    for (int i = 0; i < TIMES; ++i) {
      const int column = (i * THREADS + thread()) * 8;
      words[i] = weight_words[i] = {{0, 0, 0, 0}};
      if (column < DIM) {
        words[i] = fresh_words(hidden + column);
        weight_words[i] = words_at(weights + column);
      }
    }
    float x[TIMES][8], squares = 0;
#pragma unroll
    for (int i = 0; i < TIMES; ++i) {
      numbers_of(words[i], x[i]);
#pragma unroll
      for (int j = 0; j < 8; ++j) squares += x[i][j] * x[i][j];
    }
    float norm = inverse_root(sum_of_program(squares) / DIM + eps);
#pragma unroll
    for (int i = 0; i < TIMES; ++i) {
      float weight[8];
      numbers_of(weight_words[i], weight);
#pragma unroll
      for (int j = 0; j < 8; ++j) x[i][j] *= norm * weight[j];
      put(bits, width<DIM>(bits), (i * THREADS + thread()) * 8, x[i]);
    }
    wait_for_program();
  }
};

// A lane's part of a piece of four rows, times the activations. `at` is where it begins in a row, in bytes.
template <int BITS, bool IS_WHOLE>
DEVICE void multiply(const Activations& x, const Matrix& matrix, const char* stage, int at, float (&sums)[4]) {
  const int width = matrix.row_bytes * 8 / BITS, lane = thread() % 32 * 16;
#pragma unroll
  for (int i = 0; i < PIECE; i += AT_ONCE) {
    if (!IS_WHOLE && at + i >= matrix.row_bytes) break;
    if (BITS == 16) {
      float left[8], right[8];
      numbers_of(words_at(x.numbers + at + i), left);
#pragma unroll
      for (int row = 0; row < 4; ++row) {
        numbers_of(words_at(stage + row * PIECE + i + lane), right);
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[row] += left[j] * right[j];
      }
    } else {
      const int column = BITS == 4 ? (at + i) / 128 * 256 + at % 128 : at + i;
      const Words highs = words_at(x.numbers + column), lows = words_at(x.numbers + width + column);
      // Of the scales of a pair of rows those that belong to this lane.
      const int word = ((i + lane) >> (BITS == 4 ? 7 : 8)) * (128 >> matrix.shift) + (lane % 128 >> matrix.shift);
      const char* scales_at = stage + 4 * PIECE + word * 8;
      const float scale = x.scales[column / 128];
      Words other_highs, other_lows;
      float other_scale = 0;
      int sum = 0, other_sum = 0;
      if (BITS == 4) {
        other_highs = words_at(x.numbers + column + 128);
        other_lows = words_at(x.numbers + width + column + 128);
        // Codes are 8 more than what they stand for; those of the other half of a chunk, being in the upper halves of
        // bytes, are 16 times as large.
        sum = -8 * x.sums[column / 16];
        other_sum = -128 * x.sums[column / 16 + 8];
        other_scale = x.scales[column / 128 + 1] * (1.0f / 16);
      }
#pragma unroll
      for (int row = 0; row < 4; ++row) {
        const u32 scales = *reinterpret_cast<const u32*>(scales_at + row / 2 * (SCALES / 2) + row % 2 * 4);
        const Words codes = words_at(stage + row * PIECE + i + lane);
        int great = 0, small = sum;
        if (BITS == 8) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            great = add_dots_ss(codes.word[j], highs.word[j], great);
            small = add_dots_su(codes.word[j], lows.word[j], small);
          }
          const u32 half = column / 128 % 2 ? scales >> 16 : scales & 0xFFFF;
          sums[row] += of_half(half) * scale * float(great * 256 + small);
        } else {
          int other_great = 0, other_small = other_sum;
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const u32 one = codes.word[j] & 0x0F0F0F0F, two = codes.word[j] & 0xF0F0F0F0;
            great = add_dots_us(one, highs.word[j], great);
            small = add_dots_uu(one, lows.word[j], small);
            other_great = add_dots_us(two, other_highs.word[j], other_great);
            other_small = add_dots_uu(two, other_lows.word[j], other_small);
          }
          sums[row] += of_half(scales & 0xFFFF) * scale * float(great * 256 + small) +
                       of_half(scales >> 16) * other_scale * float(other_great * 256 + other_small);
        }
      }
    }
  }
}

template <int BITS>
DEVICE void multiply(const Activations& x, const Matrix& matrix, const char* stage, int start, float (&sums)[4]) {
  const int at = start + thread() % 32 * 16;
  if (start + PIECE <= matrix.row_bytes) multiply<BITS, true>(x, matrix, stage, at, sums);
  else multiply<BITS, false>(x, matrix, stage, at, sums);
}

DEVICE float number_at(const u16* place) { return low(*place); }
DEVICE void store(u16* place, float number) { *place = u16(pair(number, 0)); }

// What becomes of one sum, or of the two of a pair; what is needed for that is read while they are made.
struct Finish {
  const Model& model;
  const Token& token;
  Phase phase;
  int index, lane, row;
  float one, two;

  DEVICE static int lanes(Phase phase) { return phase.is(TO_HEADS) || phase.is(TO_INNER) ? 2 : 4; }

  DEVICE Finish(const Model& model, const Token& token, Phase phase, const Share& share, int item)
      : model(model), token(token), phase(phase), index(item / lanes(phase)), lane(item % lanes(phase)), one(0),
        two(0) {
    const Rows rows = rows_of(phase, share.quad(index));
    row = rows.first + lane % 2 + lane / 2 * rows.apart;
    if (index >= share.quads) return;
    if (phase.is(TO_HEADS) && row < (HEADS + KV_HEADS) * HEAD_DIM) {
      const i64 angle = token.position * (HEAD_DIM / 2) + row % HEAD_DIM;
      one = model.cosine[angle];
      two = model.sine[angle];
    } else if (phase.number == FROM_HEADS) {
      one = number_at(model.table + token.number * DIM + row);
    } else if (phase.is(FROM_HEADS) || phase.is(FROM_INNER)) {
      one = low(fresh_number(model.hidden + row));
    }
  }

  // Of the pieces of a row of the quad.
  DEVICE float sum(const Share& share, const float* sums, int number) const {
    float sum = 0;
    for (int piece = 0; piece < share.pieces; ++piece) sum += sums[(index * share.pieces + piece) * 4 + number];
    return sum;
  }

  DEVICE void operator()(const Share& share, const float* sums) const {
    if (index >= share.quads) return;
    const float first = sum(share, sums, lane);
    if (phase.is_scores()) {
      if (row < model.head.rows) store(model.logits + row, first);
    } else if (phase.is(TO_HEADS)) {
      heads(first, sum(share, sums, 2 + lane));
    } else if (phase.is(TO_INNER)) {
      store(model.inner + row, first / (1 + exp2_of(-LOG2_E * first)) * sum(share, sums, 2 + lane));
    } else {
      store(model.hidden + row, one + first);
    }
  }

  DEVICE void heads(float first, float second) const {
    constexpr int HALF = HEAD_DIM / 2;
    const Layer& layer = model.layers[phase.layer()];
    const int head = row / HEAD_DIM;
    if (layer.heads_bias) {
      first += number_at(layer.heads_bias + row);
      second += number_at(layer.heads_bias + row + HALF);
    }
    if (head < HEADS + KV_HEADS) {
      const float turned = first * one - second * two;
      second = second * one + first * two;
      first = turned;
    }
    u16* goal = model.query + row;
    if (head >= HEADS) {
      const i64 slot = (head - HEADS) % KV_HEADS * model.slots + slot_of(token, Steps(token, phase, 0).place);
      goal = (head < HEADS + KV_HEADS ? layer.keys : layer.values) + slot * HEAD_DIM + row % HEAD_DIM;
    }
    store(goal, first);
    store(goal + HALF, second);
  }
};

// The sums of a warp's lanes for four rows, each by the first of eight lanes that have it then.
DEVICE void store_sums(const float (&sums)[4], float* goal) {
  const int lane = thread() % 32;
  const bool is_late = lane & 16, is_odd = lane & 8;
  const float even = (is_late ? sums[2] : sums[0]) + exchange(is_late ? sums[0] : sums[2], 16);
  const float odd = (is_late ? sums[3] : sums[1]) + exchange(is_late ? sums[1] : sums[3], 16);
  float sum = (is_odd ? odd : even) + exchange(is_odd ? even : odd, 8);
#pragma unroll
  for (int other = 4; other; other /= 2) sum += exchange(sum, other);
  if (lane % 8 == 0) goal[lane / 8] = sum;
}

DEVICE void product(const Model& model, const Token& token, Ring& ring, const Activations& x, float* sums, Phase phase,
                    int& shift) {
  const Matrix matrix = phase.matrix(model);
  const Share share(matrix, shift);
  const Finish finish(model, token, phase, share, thread());
  for (int piece = warp(); piece < share.size(); piece += WARPS) {
    const int at = piece % share.pieces * PIECE;
    float lane_sums[4] = {0, 0, 0, 0};
    ring.wait_until_filled();
    if (matrix.bits == 16) multiply<16>(x, matrix, ring.stage(), at, lane_sums);
    else if (matrix.bits == 8) multiply<8>(x, matrix, ring.stage(), at, lane_sums);
    else multiply<4>(x, matrix, ring.stage(), at, lane_sums);
    ring.empty();
    store_sums(lane_sums, sums + piece * 4);
  }
  wait_for_program();
  finish(share, sums);
  for (int item = THREADS + thread(); item < share.quads * Finish::lanes(phase); item += THREADS) {
    Finish(model, token, phase, share, item)(share, sums);
  }
}

// Attention of the new token; each eight lanes have sums of their own until the end.
DEVICE void attend(const Model& model, const Token& token, Ring& ring, float* room, Phase phase) {
  const int lane = thread() % 32, own = lane % 8 * 8;
  const Layer& layer = model.layers[phase.layer()];
  for (int item = program(); item < KV_HEADS * SPLITS; item += programs()) {
    const int head = item / SPLITS;
    float query[GROUP][EIGHTS][8], mixed[GROUP][EIGHTS][8], greatest[GROUP], total[GROUP];
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
      greatest[g] = -1e30f;
      total[g] = 0;
#pragma unroll
      for (int e = 0; e < EIGHTS; ++e) {
        numbers_of(fresh_words(model.query + (head * GROUP + g) * HEAD_DIM + e * 64 + own), query[g][e]);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          query[g][e][i] *= LOG2_E * inverse_root(float(HEAD_DIM));
          mixed[g][e][i] = 0;
        }
      }
    }
    const Steps steps(token, phase, item % SPLITS);
    for (int step = steps.start + warp(); step < steps.end; step += WARPS) {
      ring.wait_until_filled();
      char* stage = ring.stage() + lane / 8 * ROW + own * 2;
      const int new_row = steps.place - step * TOKENS;  // maybe of a later step
      if (new_row < TOKENS && new_row % 4 == lane / 8) {  // written in this launch, maybe after it was copied
#pragma unroll
        for (int e = 0; e < EIGHTS; ++e) {
          const i64 place = (head * model.slots + slot_of(token, steps.place)) * HEAD_DIM + e * 64 + own;
          char* goal = stage + new_row / 4 * 4 * ROW + e * 128;
          *reinterpret_cast<Words*>(goal) = fresh_words(layer.keys + place);
          *reinterpret_cast<Words*>(goal + TOKENS * ROW) = fresh_words(layer.values + place);
        }
        writes_before_copies();
      }
#pragma unroll
      for (int g = 0; g < GROUP; ++g) {
        float scores[TOKENS / 4], new_greatest = greatest[g];
#pragma unroll
        for (int t = 0; t < TOKENS / 4; ++t) {
          const int row = 4 * t + lane / 8;
          float score = 0;
#pragma unroll
          for (int e = 0; e < EIGHTS; ++e) {
            float key[8];
            numbers_of(words_at(stage + 4 * t * ROW + e * 128), key);
#pragma unroll
            for (int i = 0; i < 8; ++i) score += query[g][e][i] * key[i];
          }
#pragma unroll
          for (int other = 4; other; other /= 2) score += exchange(score, other);
          if (model.bias) score += LOG2_E * number_at(model.bias + slot_of(token, step * TOKENS) + row);
          scores[t] = row <= new_row ? score : -1e30f;
          new_greatest = fmaxf(new_greatest, scores[t]);
        }
        const float shrink = exp2_of(greatest[g] - new_greatest);
        greatest[g] = new_greatest;
        total[g] *= shrink;
#pragma unroll
        for (int e = 0; e < EIGHTS; ++e)
#pragma unroll
          for (int i = 0; i < 8; ++i) mixed[g][e][i] *= shrink;
#pragma unroll
        for (int t = 0; t < TOKENS / 4; ++t) {
          const int row = 4 * t + lane / 8;
          if (row > new_row) continue;  // not even a weight of 0 hides a NaN
          const float weight = exp2_of(scores[t] - new_greatest);
          total[g] += weight;
#pragma unroll
          for (int e = 0; e < EIGHTS; ++e) {
            float value[8];
            numbers_of(words_at(stage + (TOKENS + 4 * t) * ROW + e * 128), value);
#pragma unroll
            for (int i = 0; i < 8; ++i) mixed[g][e][i] += weight * value[i];
          }
        }
      }
      ring.empty();
    }
    // What the four of eight lanes have, then what the warps have.
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
      float most = fmaxf(greatest[g], exchange(greatest[g], 8));
      most = fmaxf(most, exchange(most, 16));
      const float shrink = exp2_of(greatest[g] - most);
      float* goal = room + (warp() * GROUP + g) * PART;
      total[g] *= shrink;
      total[g] += exchange(total[g], 8);
      total[g] += exchange(total[g], 16);
#pragma unroll
      for (int e = 0; e < EIGHTS; ++e)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float sum = mixed[g][e][i] * shrink;
          sum += exchange(sum, 8);
          sum += exchange(sum, 16);
          if (lane < 8) goal[e * 64 + own + i] = sum;
        }
      if (lane == 0) goal[HEAD_DIM] = most, goal[HEAD_DIM + 1] = total[g];
    }
    wait_for_program();
    for (int at = thread(); at < GROUP * HEAD_DIM; at += THREADS) {
      const int g = at / HEAD_DIM, channel = at % HEAD_DIM;
      float most = -1e30f, sum = 0, weights = 0;
#pragma unroll
      for (int w = 0; w < WARPS; ++w) most = fmaxf(most, room[(w * GROUP + g) * PART + HEAD_DIM]);
#pragma unroll
      for (int w = 0; w < WARPS; ++w) {
        const float* its = room + (w * GROUP + g) * PART;
        const float shrink = exp2_of(its[HEAD_DIM] - most);
        sum += its[channel] * shrink;
        weights += its[HEAD_DIM + 1] * shrink;
      }
      float* goal = model.partial + (item * GROUP + g) * PART;
      goal[channel] = sum;
      if (channel == 0) goal[HEAD_DIM] = most, goal[HEAD_DIM + 1] = weights;
    }
    wait_for_program();
  }
}

// What the parts of a head's tokens make together, for eight channels.
DEVICE void put_together(const Model& model, int column, float (&x)[8]) {
  const int head = column / HEAD_DIM;
  const float* parts = model.partial + (head / GROUP * SPLITS * GROUP + head % GROUP) * PART;
  Words sums[SPLITS][2], about[SPLITS];
#pragma unroll
  for (int split = 0; split < SPLITS; ++split) {
    const float* part = parts + split * ATTENTION_PART;
    about[split] = fresh_words(part + HEAD_DIM);
    for (int i = 0; i < 2; ++i) sums[split][i] = fresh_words(part + column % HEAD_DIM + 4 * i);
  }
  float most = -1e30f, total = 0;
#pragma unroll
  for (int split = 0; split < SPLITS; ++split) most = fmaxf(most, float_of(about[split].word[0]));
#pragma unroll
  for (int split = 0; split < SPLITS; ++split) {
    const float shrink = exp2_of(float_of(about[split].word[0]) - most);
    total += shrink * float_of(about[split].word[1]);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] += shrink * float_of(sums[split][i / 4].word[i % 4]);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] /= total;
}

KERNEL decode_token(const __grid_constant__ Model model, const i64* plan) {
  const Token token(plan);
  Ring ring(warp() % WARPS);
  if (thread() < THREADS && thread() % 32 == 0) ring.begin_all();
  wait_for_all();
  if (thread() >= THREADS) {
    Caller{model, token, ring}.call_all(warp() % WARPS);
    return;
  }
  char* behind = shared() + Ring::bytes();
  Activations x{behind, reinterpret_cast<float*>(behind + ACTIVATIONS), nullptr, nullptr};
  x.sums = reinterpret_cast<int*>(x.scales + WIDEST / 128);
  x.warps_sums = reinterpret_cast<float*>(x.sums + WIDEST / 16);
  float* sums = x.warps_sums + WARPS;
  const u16* hidden = model.table + token.number * DIM;
  int shift = 0;
  for (Phase phase{0};; ++phase.number) {
    if (phase.is(ATTENTION)) {
      attend(model, token, ring, reinterpret_cast<float*>(x.numbers), phase);
    } else {
      const int bits = phase.matrix(model).bits;
      if (phase.is(FROM_HEADS)) {
        x.put_all<QUERY>(bits, [&](int column, float (&part)[8]) { put_together(model, column, part); });
      } else if (phase.is(FROM_INNER)) {
        x.put_all<INNER>(bits, [&](int column, float (&part)[8]) {
          numbers_of(fresh_words(model.inner + column), part);
        });
      } else {
        const u16* weights = phase.is_scores()     ? model.norm
                             : phase.is(TO_HEADS) ? model.layers[phase.layer()].input_norm
                                                  : model.layers[phase.layer()].output_norm;
        x.put_norm(bits, hidden, weights, float(model.eps));
      }
      product(model, token, ring, x, sums, phase, shift);
    }
    if (phase.is(FROM_HEADS)) hidden = model.hidden;
    if (phase.is_scores()) break;
    meet(model.arrived, (phase.number + 1) * programs());
  }
  part(model.arrived, (LAYERS * KINDS + 1) * programs());
}

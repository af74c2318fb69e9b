// A token through the whole decoder in one launch, with as many programs as the card has processors.
//
// Weights do not depend on the token, so nothing has to wait with reading them. Some warps of a program, its callers, do
// nothing but go through all that the others will need, over all layers, and call for the next piece as soon as there is
// room in shared memory. Where programs have to wait for one another (five times a layer), the memory goes on.
//
// They wait for numbers, not for programs: what one of them tells the others stands in the upper half of a word, and the
// lower half says for which phase it was told. Nobody writes for a later phase before all have read what they need, since
// whatever he writes comes of what all have made of that.
//
// No more than AHEAD pieces of a warp are under way at any time: just so many as keep the memory busy. With more of them,
// whatever else is read would stand in line behind them.
//
// Activations become whole numbers of 16 bits, with a scale for 128 of them, where weights are codes: two bytes, each
// multiplied with codes four at a time. That is exact, and finer than bfloat16.
//
// Constants given by the host: PROGRAMS, LAYERS, DROP_AFTER, DIM, INNER, HEADS, KV_HEADS, HEAD_DIM, BLOCK, HEADER, SPLITS, WARPS,
// CALLERS, STAGES, AHEAD, PIECE, SCALES, IS_HALF.

constexpr int THREADS = WARPS * 32, GROUP = HEADS / KV_HEADS, QUERY = HEADS * HEAD_DIM;
constexpr int STAGE = 4 * PIECE + SCALES;  // bytes: a piece of four rows of a matrix, and behind them their scales
constexpr int TOKENS = PIECE / HEAD_DIM < BLOCK ? PIECE / HEAD_DIM : BLOCK;  // whose keys and values fill one
constexpr int LARGEST = DIM > INNER ? (DIM > QUERY ? DIM : QUERY) : (INNER > QUERY ? INNER : QUERY);
constexpr int WIDEST = (LARGEST + 255) / 256 * 256;
constexpr int PART = HEAD_DIM + 2;  // of attention: sums of a head, their greatest score and total weight
constexpr int PARTS = 4 * WARPS * GROUP * PART, ACTIVATIONS = 2 * WIDEST > PARTS ? 2 * WIDEST : PARTS;
constexpr int EIGHTS = HEAD_DIM / 64, ROW = HEAD_DIM * 2;  // of eight lanes with eight channels each; bytes
static_assert(HEAD_DIM % 64 == 0, "eight lanes have eight channels each, once or several times");
static_assert(PIECE == 1024, "four lanes have a group of 128 codes, and a warp eight such groups");
static_assert(WARPS % CALLERS == 0, "what a warp needs is called for by one caller alone, and so in order");
static_assert(TOKENS % 4 == 0 && BLOCK % TOKENS == 0, "a warp takes four tokens at a time, and a block some times");

// Rows of `bits` each; where they are codes, with float16 scales for groups of 1 << `shift` columns (GpuMatrix), of which
// two rows have `pair_bytes`.
struct Matrix {
  const char *data, *scales;
  int rows, row_bytes, pair_bytes, bits, shift, padding;
};

struct Layer {
  const u16 *input_norm, *output_norm, *heads_bias;
  u16 *keys, *values;
  Matrix matrices[4];  // to heads and from them, to what is inside and from it
};

struct Model {
  const u16 *table, *norm, *bias;
  const float *cosine, *sine;
  // What programs tell one another: queries, keys and values; means of parts of the tokens, and their weights, which are
  // greatest scores and totals, each with a word behind it; hidden states behind either half of a layer, and in between.
  u32 *heads, *means, *weights, *middle, *inner, *hidden;
  u32* told;  // phases, in all launches before
  u16* logits;
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

  DEVICE Steps(const Token& token, Phase phase, int split) : place(phase.layer() < DROP_AFTER ? token.place : token.later) {
    const int all = place / TOKENS + 1, share = (all + SPLITS - 1) / SPLITS;
    start = split * share;
    end = start + share < all ? start + share : all;
  }
};

DEVICE i64 slot_of(const Token& token, int place) { return token.blocks[place / BLOCK] * BLOCK + place % BLOCK; }

// What a program has of a product: quads, shared out among programs one by one, going on in the next phase where the last
// one ended. Their pieces are shared out among its warps, so that all of these are busy until the end.
struct Share {
  int first, quads, pieces;

  DEVICE Share(const Matrix& matrix, int& shift) : pieces((matrix.row_bytes + PIECE - 1) / PIECE) {
    const int all = (matrix.rows + 3) / 4, mine = program() - shift;
    first = mine < 0 ? mine + PROGRAMS : mine;
    quads = first < all ? (all - first - 1) / PROGRAMS + 1 : 0;
    shift = (shift + all) % PROGRAMS;
  }
  DEVICE int quad(int index) const { return first + index * PROGRAMS; }
};

// Every `step`-th piece of a share.
struct Cursor {
  int index, piece;  // which quad of the share, and which of its pieces
  int quads, pieces, more_quads, more_pieces;

  DEVICE Cursor(const Share& share, int first, int step)
      : index(first / share.pieces), piece(first % share.pieces), quads(share.quads), pieces(share.pieces),
        more_quads(step / share.pieces), more_pieces(step % share.pieces) {}

  DEVICE bool is_there() const { return index < quads; }
  DEVICE void go_on() {
    index += more_quads;
    piece += more_pieces;
    if (piece >= pieces) piece -= pieces, ++index;
  }
};

// The stages of a warp, each filled and emptied again and again. Whoever fills them and whoever empties them count by
// themselves.
struct Ring {
  char* stages;
  Gate *filled, *emptied;
  u32 number, turn, use;  // which stage, how often all of them were used, odd or even, and how many that is altogether

  Ring() = default;
  DEVICE explicit Ring(int warp) : stages(shared() + warp * STAGES * STAGE), number(0), turn(0), use(0) {
    filled = reinterpret_cast<Gate*>(shared() + WARPS * STAGES * STAGE) + warp * 2 * STAGES;
    emptied = filled + STAGES;
  }
  DEVICE static constexpr int bytes() { return WARPS * STAGES * (STAGE + 2 * int(sizeof(Gate))); }

  DEVICE void begin_all() const {
    for (int gate = 0; gate < 2 * STAGES; ++gate) begin(filled + gate);
    gates_have_begun();
  }

  DEVICE char* stage() const { return stages + number * STAGE; }
  DEVICE Gate* gate() const { return filled + number; }
  DEVICE void go_on() {
    ++use;
    if (++number == STAGES) number = 0, turn ^= 1;
  }

  DEVICE void wait_until_filled() const { wait(gate(), turn); }
  DEVICE void empty() {
    wait_for_warp();
    if (thread() % 32 == 0) arrive(emptied + number);
    go_on();
  }

  DEVICE void wait_until_it_may_be_filled() const {
    if (use >= STAGES) wait(emptied + number, turn ^ 1);
    if (use >= AHEAD) {
      const bool is_before = number < AHEAD;  // of the stages' last turn
      wait(filled + number - AHEAD + (is_before ? STAGES : 0), turn ^ is_before);
    }
  }
};

// A warp that calls for what some others need, in the order in which all of them do: so it never waits for room for what
// is needed later while they wait for what is needed now.
struct Caller {
  static constexpr int RINGS = WARPS / CALLERS;
  const Model& model;
  const Token& token;
  int first;  // warp; the others follow in steps of CALLERS
  Ring rings[RINGS];

  DEVICE Caller(const Model& model, const Token& token, int first) : model(model), token(token), first(first) {
#pragma unroll
    for (int i = 0; i < RINGS; ++i) rings[i] = Ring(first + i * CALLERS);
  }

  DEVICE void call_all() {
    int shift = 0;
    for (Phase phase{0}; phase.number <= LAYERS * KINDS; ++phase.number) {
      if (phase.is(ATTENTION)) {
        for (int item = program(); item < KV_HEADS * SPLITS; item += PROGRAMS) call_tokens(phase, item);
      } else {
        call_rows(phase, shift);
      }
    }
  }

  DEVICE void call_tokens(Phase phase, int item) {
    const Steps steps(token, phase, item % SPLITS);
    for (int start = steps.start + first; start < steps.end; start += WARPS) {
#pragma unroll
      for (int i = 0; i < RINGS; ++i) {
        if (start + i * CALLERS < steps.end) call_tokens(rings[i], phase, item / SPLITS, start + i * CALLERS);
      }
    }
  }

  DEVICE void call_rows(Phase phase, int& shift) {
    const Matrix matrix = phase.matrix(model);
    const Share share(matrix, shift);
    for (Cursor cursor(share, first, CALLERS); cursor.is_there();) {
#pragma unroll
      for (int i = 0; i < RINGS; ++i) {
        if (cursor.is_there()) call_rows(rings[i], matrix, rows_of(phase, share.quad(cursor.index)), cursor.piece * PIECE);
        cursor.go_on();
      }
    }
  }

  DEVICE void call_tokens(Ring& ring, Phase phase, int head, int step) const {
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
    ring.go_on();
  }

  DEVICE void call_rows(Ring& ring, const Matrix& matrix, Rows rows, int at) const {
    const int left = matrix.row_bytes - at, bytes = left < PIECE ? left : PIECE;
    const int chunk = matrix.bits == 4 ? 7 : 8, words = 128 >> matrix.shift;  // of a chunk of so many bytes, in powers of 2
    const int scales = matrix.bits == 16 ? 0 : ((bytes >> chunk) * words * 8 + 15) / 16 * 16;
    ring.wait_until_it_may_be_filled();
    if (is_elected()) {
      char* stage = ring.stage();
      Gate* gate = ring.gate();
      arrive_expecting(gate, 4 * bytes + 2 * scales);
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const int row = rows.first + pair * rows.apart;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const u32 place = u32(row + i < matrix.rows ? row + i : matrix.rows - 1) * u32(matrix.row_bytes);
          copy(stage + (2 * pair + i) * PIECE, matrix.data + place + at, bytes, gate);
        }
        if (scales) {
          const u32 place = u32(row < matrix.rows ? row / 2 : 0) * u32(matrix.pair_bytes);
          copy(stage + 4 * PIECE + pair * (SCALES / 2), matrix.scales + place + (at >> chunk) * words * 8, scales, gate);
        }
      }
    }
    wait_for_warp();
    ring.go_on();
  }
};

// Words, told for one phase; their numbers are those of the model's type.
struct Told {
  u32 tag;

  DEVICE Told(u32 before, Phase phase) : tag((before + phase.number + 1) & 0xFFFF) {}

  DEVICE void tell(u32* place, float number) const { publish(place, pair(number, 0) << 16 | tag); }
  DEVICE void tell_float(u32* place, float number) const { publish_pair(place, bits_of(number), tag); }

  // Whether eight of them are there, which are read in any case.
  DEVICE bool hear(const u32* place, float (&numbers)[8]) const {
    u32 others = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Words words = fresh_words(place + 4 * i);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        numbers[4 * i + j] = high(words.word[j]);
        others |= words.word[j] ^ tag;
      }
    }
    return !(others & 0xFFFF);
  }
};

DEVICE Words words_at(const void* place) { return *static_cast<const Words*>(place); }

DEVICE void numbers_of(const Words& words, float (&numbers)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    numbers[2 * i] = low(words.word[i]);
    numbers[2 * i + 1] = high(words.word[i]);
  }
}

DEVICE Words words_of(const float (&numbers)[8]) {
  Words words;
#pragma unroll
  for (int i = 0; i < 4; ++i) words.word[i] = pair(numbers[2 * i], numbers[2 * i + 1]);
  return words;
}

DEVICE float sum_of_warp(float value) {
#pragma unroll
  for (int other = 16; other; other /= 2) value += exchange(value, other);
  return value;
}

// How often all threads take eight columns each, until they have so many and what a chunk of codes is padded with.
template <int NUMBER>
constexpr int TIMES = ((NUMBER + 255) / 256 * 256 + 8 * THREADS - 1) / (8 * THREADS);

// Activations in shared memory, as a product with a matrix of so many bits takes them.
struct Activations {
  char* numbers;  // of the model's type; or high bytes, and behind `width` of them low ones
  float* scales;
  int* sums;          // of 32 columns each, of whole numbers
  float* warps_sums;  // room for one of each warp

  // Eight columns of a thread, of which 16 threads that follow one another have a group.
  DEVICE void put(int bits, int width, int column, const float (&x)[8]) {
    if (bits == 16) {
      if (column < width) *reinterpret_cast<Words*>(numbers + column * 2) = words_of(x);
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
    sum += exchange(sum, 2);
    if (column >= width) return;
    u32* high_words = reinterpret_cast<u32*>(numbers + column);
    u32* low_words = reinterpret_cast<u32*>(numbers + width + column);
    high_words[0] = highs[0], high_words[1] = highs[1];
    low_words[0] = lows[0], low_words[1] = lows[1];
    if (column % 32 == 0) sums[column / 32] = sum;
    if (column % 128 == 0) scales[column / 128] = largest / 32512.0f;
  }

  template <int NUMBER>
  DEVICE static int width(int bits) {
    return bits == 16 ? NUMBER : (NUMBER + 255) / 256 * 256;
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

  // `numbers` says whether the eight at a column are there, and what they are.
  template <int NUMBER, class Numbers>
  DEVICE static void wait_for(Numbers numbers, float (&x)[TIMES<NUMBER>][8]) {
    for (;;) {
      bool are_there = true;
#pragma unroll
      for (int i = 0; i < TIMES<NUMBER>; ++i) {
        const int column = (i * THREADS + thread()) * 8;
#pragma unroll
        for (int j = 0; j < 8; ++j) x[i][j] = 0;
        if (column < NUMBER) are_there &= numbers(column, x[i]);
      }
      if (are_there) return;
      go_round();
    }
  }

  template <int NUMBER, class Numbers>
  DEVICE void put_all(int bits, Numbers numbers) {
    float x[TIMES<NUMBER>][8];
    wait_for<NUMBER>(numbers, x);
#pragma unroll
    for (int i = 0; i < TIMES<NUMBER>; ++i) put(bits, width<NUMBER>(bits), (i * THREADS + thread()) * 8, x[i]);
    wait_for_program();
  }

  // RMSNorm.
  template <class Numbers>
  DEVICE void put_norm(int bits, Numbers numbers, const u16* weights, float eps) {
    Words weight_words[TIMES<DIM>];
#pragma unroll
    for (int i = 0; i < TIMES<DIM>; ++i) {
      const int column = (i * THREADS + thread()) * 8;
      weight_words[i] = {{0, 0, 0, 0}};
      if (column < DIM) weight_words[i] = words_at(weights + column);
    }
    float x[TIMES<DIM>][8], squares = 0;
    wait_for<DIM>(numbers, x);
#pragma unroll
    for (int i = 0; i < TIMES<DIM>; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) squares += x[i][j] * x[i][j];
    const float norm = inverse_root(sum_of_program(squares) / DIM + eps);
#pragma unroll
    for (int i = 0; i < TIMES<DIM>; ++i) {
      float weight[8];
      numbers_of(weight_words[i], weight);
#pragma unroll
      for (int j = 0; j < 8; ++j) x[i][j] *= norm * weight[j];
      put(bits, width<DIM>(bits), (i * THREADS + thread()) * 8, x[i]);
    }
    wait_for_program();
  }
};

// A warp's piece of four rows that begins at byte `start`, times the activations; each lane adds up for itself.
DEVICE void multiply_plain(const Activations& x, const char* stage, int start, int end, float (&sums)[4]) {
  const int lane = thread() % 32 * 16;
#pragma unroll
  for (int i = 0; i < PIECE; i += 512) {
    if (start + i + lane >= end) break;
    float left[8], right[8];
    numbers_of(words_at(x.numbers + start + i + lane), left);
#pragma unroll
    for (int row = 0; row < 4; ++row) {
      numbers_of(words_at(stage + row * PIECE + i + lane), right);
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[row] += left[j] * right[j];
    }
  }
}

// Of codes, a lane has 32 bytes that follow one another, all of one group, and reads them in two parts; which of them is
// first alternates, so that no two lanes want the same bank of shared memory.
template <int BITS>
DEVICE void multiply_codes(const Activations& x, const Matrix& matrix, const char* stage, int start, float (&sums)[4]) {
  const int lane = thread() % 32, unit = lane / 4, inside = lane % 4 * 32, here = unit * 128 + inside;
  if (start + here >= matrix.row_bytes) return;
  const int width = matrix.row_bytes * 8 / BITS, column = BITS == 4 ? (start + unit * 128) * 2 + inside : start + here;
  // Codes of 4 bits are 8 more than what they stand for; those of the other half of a chunk, being in the upper halves of
  // bytes, are 16 times as large.
  int great[4] = {0, 0, 0, 0}, small[4], other_great[4] = {0, 0, 0, 0}, other_small[4];
#pragma unroll
  for (int row = 0; row < 4; ++row) {
    small[row] = BITS == 4 ? -8 * x.sums[column / 32] : 0;
    other_small[row] = BITS == 4 ? -128 * x.sums[column / 32 + 4] : 0;
  }
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int at = (part ^ (unit & 1)) * 16;
    const char* numbers = x.numbers + column + at;
    const Words highs = words_at(numbers), lows = words_at(numbers + width);
    Words other_highs, other_lows;
    if (BITS == 4) {
      other_highs = words_at(numbers + 128);
      other_lows = words_at(numbers + width + 128);
    }
#pragma unroll
    for (int row = 0; row < 4; ++row) {
      const Words codes = words_at(stage + row * PIECE + here + at);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (BITS == 8) {
          great[row] = add_dots_ss(codes.word[i], highs.word[i], great[row]);
          small[row] = add_dots_su(codes.word[i], lows.word[i], small[row]);
        } else {
          const u32 one = codes.word[i] & 0x0F0F0F0F, two = codes.word[i] & 0xF0F0F0F0;
          great[row] = add_dots_us(one, highs.word[i], great[row]);
          small[row] = add_dots_uu(one, lows.word[i], small[row]);
          other_great[row] = add_dots_us(two, other_highs.word[i], other_great[row]);
          other_small[row] = add_dots_uu(two, other_lows.word[i], other_small[row]);
        }
      }
    }
  }
  const float scale = x.scales[column / 128], other_scale = BITS == 4 ? x.scales[column / 128 + 1] * (1.0f / 16) : 0;
  const int word = (BITS == 4 ? unit : unit / 2) * (128 >> matrix.shift) + (inside >> matrix.shift);
#pragma unroll
  for (int row = 0; row < 4; ++row) {
    const u32 scales = *reinterpret_cast<const u32*>(stage + 4 * PIECE + row / 2 * (SCALES / 2) + word * 8 + row % 2 * 4);
    const float sum = float(great[row] * 256 + small[row]);
    if (BITS == 4) {
      sums[row] = of_half(scales & 0xFFFF) * scale * sum +
                  of_half(scales >> 16) * other_scale * float(other_great[row] * 256 + other_small[row]);
    } else {
      sums[row] = of_half(unit % 2 ? scales >> 16 : scales & 0xFFFF) * scale * sum;
    }
  }
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
      : model(model), token(token), phase(phase), index(item / lanes(phase)), lane(item % lanes(phase)), one(0), two(0) {
    const Rows rows = rows_of(phase, share.quad(index));
    row = rows.first + lane % 2 + lane / 2 * rows.apart;
    if (index >= share.quads) return;
    if (phase.is(TO_HEADS) && row < (HEADS + KV_HEADS) * HEAD_DIM) {
      const i64 angle = token.position * (HEAD_DIM / 2) + row % HEAD_DIM;
      one = model.cosine[angle];
      two = model.sine[angle];
    } else if (phase.number == FROM_HEADS) {
      one = number_at(model.table + token.number * DIM + row);
    } else if (phase.is(FROM_HEADS) || phase.is(FROM_INNER)) {  // all of these were heard before
      one = high(fresh_word((phase.is(FROM_HEADS) ? model.hidden : model.middle) + row));
    }
  }

  // Of the pieces of a row of the quad.
  DEVICE float sum(const Share& share, const float* sums, int number) const {
    float sum = 0;
    for (int piece = 0; piece < share.pieces; ++piece) sum += sums[(index * share.pieces + piece) * 4 + number];
    return sum;
  }

  DEVICE void operator()(const Share& share, const float* sums, Told told) const {
    if (index >= share.quads) return;
    const float first = sum(share, sums, lane);
    if (phase.is_scores()) {
      if (row < model.head.rows) store(model.logits + row, first);
    } else if (phase.is(TO_HEADS)) {
      heads(first, sum(share, sums, 2 + lane), told);
    } else if (phase.is(TO_INNER)) {
      told.tell(model.inner + row, first / (1 + exp2_of(-1.44269504f * first)) * sum(share, sums, 2 + lane));
    } else {
      told.tell((phase.is(FROM_HEADS) ? model.middle : model.hidden) + row, one + first);
    }
  }

  DEVICE void heads(float first, float second, Told told) const {
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
    told.tell(model.heads + row, first);
    told.tell(model.heads + row + HALF, second);
    if (head >= HEADS) {  // for later tokens
      const i64 slot = (head - HEADS) % KV_HEADS * model.slots + slot_of(token, Steps(token, phase, 0).place);
      u16* goal = (head < HEADS + KV_HEADS ? layer.keys : layer.values) + slot * HEAD_DIM + row % HEAD_DIM;
      store(goal, first);
      store(goal + HALF, second);
    }
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
                    Told told, int& shift) {
  const Matrix matrix = phase.matrix(model);
  const Share share(matrix, shift);
  const Finish finish(model, token, phase, share, thread());
  for (Cursor cursor(share, warp(), WARPS); cursor.is_there(); cursor.go_on()) {
    const int start = cursor.piece * PIECE;
    float lane_sums[4] = {0, 0, 0, 0};
    ring.wait_until_filled();
    if (matrix.bits == 4) multiply_codes<4>(x, matrix, ring.stage(), start, lane_sums);
    else if (matrix.bits == 8) multiply_codes<8>(x, matrix, ring.stage(), start, lane_sums);
    else multiply_plain(x, ring.stage(), start, matrix.row_bytes, lane_sums);
    ring.empty();
    store_sums(lane_sums, sums + (cursor.index * share.pieces + cursor.piece) * 4);
  }
  wait_for_program();
  finish(share, sums, told);
  for (int item = THREADS + thread(); item < share.quads * Finish::lanes(phase); item += THREADS) {
    Finish(model, token, phase, share, item)(share, sums, told);
  }
}

// Attention of the new token; each eight lanes have sums of their own until the end.
DEVICE void attend(const Model& model, const Token& token, Ring& ring, float* room, Phase phase, u32 before) {
  const Told of_heads(before, {phase.number - 1}), told(before, phase);
  const int lane = thread() % 32, own = lane % 8 * 8;
  for (int item = program(); item < KV_HEADS * SPLITS; item += PROGRAMS) {
    const int head = item / SPLITS;
    float query[GROUP][EIGHTS][8], mixed[GROUP][EIGHTS][8], greatest[GROUP], total[GROUP];
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
      greatest[g] = -1e30f;
      total[g] = 0;
#pragma unroll
      for (int e = 0; e < EIGHTS; ++e) {
        while (!of_heads.hear(model.heads + (head * GROUP + g) * HEAD_DIM + e * 64 + own, query[g][e])) go_round();
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          query[g][e][i] *= 1.44269504f * inverse_root(float(HEAD_DIM));
          mixed[g][e][i] = 0;
        }
      }
    }
    const Steps steps(token, phase, item % SPLITS);
    for (int step = steps.start + warp(); step < steps.end; step += WARPS) {
      ring.wait_until_filled();
      char* stage = ring.stage() + lane / 8 * ROW + own * 2;
      const int new_row = steps.place - step * TOKENS;  // maybe of a later step
      if (new_row < TOKENS && new_row % 4 == lane / 8) {  // the token itself, made in this launch
#pragma unroll
        for (int kind = 0; kind < 2; ++kind)
#pragma unroll
          for (int e = 0; e < EIGHTS; ++e) {
            const u32* place = model.heads + (HEADS + kind * KV_HEADS + head) * HEAD_DIM + e * 64 + own;
            float numbers[8];
            while (!of_heads.hear(place, numbers)) go_round();
            *reinterpret_cast<Words*>(stage + (kind * TOKENS + new_row / 4 * 4) * ROW + e * 128) = words_of(numbers);
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
          if (model.bias) score += 1.44269504f * number_at(model.bias + slot_of(token, step * TOKENS) + row);
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
      told.tell(model.means + (item * GROUP + g) * HEAD_DIM + channel, weights > 0 ? sum / weights : 0);
      if (channel == 0) {
        told.tell_float(model.weights + (item * GROUP + g) * 4, most);
        told.tell_float(model.weights + (item * GROUP + g) * 4 + 2, weights);
      }
    }
    wait_for_program();
  }
}

// What the parts of a head's tokens make together, for eight channels; and whether they are there.
DEVICE bool put_together(const Model& model, int column, Told told, float (&x)[8]) {
  const int head = column / HEAD_DIM, first = head / GROUP * SPLITS * GROUP + head % GROUP;
  float means[SPLITS][8];
  Words weights[SPLITS];
  bool are_there = true;
#pragma unroll
  for (int split = 0; split < SPLITS; ++split) {
    weights[split] = fresh_words(model.weights + (first + split * GROUP) * 4);
    are_there &= told.hear(model.means + (first + split * GROUP) * HEAD_DIM + column % HEAD_DIM, means[split]);
    are_there &= weights[split].word[1] == told.tag && weights[split].word[3] == told.tag;
  }
  float most = -1e30f, total = 0;
#pragma unroll
  for (int split = 0; split < SPLITS; ++split) most = fmaxf(most, float_of(weights[split].word[0]));
#pragma unroll
  for (int split = 0; split < SPLITS; ++split) {
    const float weight = exp2_of(float_of(weights[split].word[0]) - most) * float_of(weights[split].word[2]);
    total += weight;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] += weight * means[split][i];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] /= total;
  return are_there;
}

KERNEL decode_token(const __grid_constant__ Model model, const i64* plan) {
  const Token token(plan);
  Ring ring(warp());  // of callers none, but all of a warp have to ask for its number
  if (warp() < WARPS && is_elected()) ring.begin_all();
  wait_for_all();
  if (warp() >= WARPS) {
    Caller(model, token, warp() - WARPS).call_all();
    return;
  }
  char* behind = shared() + Ring::bytes();
  Activations x{behind, reinterpret_cast<float*>(behind + ACTIVATIONS), nullptr, nullptr};
  x.sums = reinterpret_cast<int*>(x.scales + WIDEST / 128);
  x.warps_sums = reinterpret_cast<float*>(x.sums + WIDEST / 32);
  float* sums = x.warps_sums + WARPS;
  const u32 before = fresh_word(model.told);
  int shift = 0;
  for (Phase phase{0};; ++phase.number) {
    const Told heard(before, {phase.number - 1}), told(before, phase);
    if (phase.is(ATTENTION)) {
      attend(model, token, ring, reinterpret_cast<float*>(x.numbers), phase, before);
      continue;
    }
    const int bits = phase.matrix(model).bits;
    if (phase.is(FROM_HEADS)) {
      x.put_all<QUERY>(bits, [&](int column, float (&some)[8]) { return put_together(model, column, heard, some); });
    } else if (phase.is(FROM_INNER)) {
      x.put_all<INNER>(bits, [&](int column, float (&some)[8]) { return heard.hear(model.inner + column, some); });
    } else {
      const Layer& layer = model.layers[phase.is_scores() ? 0 : phase.layer()];
      const u16* weights = phase.is_scores() ? model.norm : phase.is(TO_HEADS) ? layer.input_norm : layer.output_norm;
      const u32* hidden = phase.is(TO_INNER) ? model.middle : model.hidden;
      x.put_norm(bits, [&](int column, float (&some)[8]) {
        if (phase.number > 0) return heard.hear(hidden + column, some);
        numbers_of(words_at(model.table + token.number * DIM + column), some);
        return true;
      }, weights, float(model.eps));
    }
    product(model, token, ring, x, sums, phase, told, shift);
    if (phase.is_scores()) break;
  }
  // All have begun by now, since what they said was heard.
  if (program() == 0 && thread() == 0) *model.told = before + LAYERS * KINDS + 1;
}

// The selective scan and its gradient in fp32, one (row, block of channels) after another. ../README.md has the
// mathematics. The lanes of a vector lie along the channels: their states are independent, and `b` and `c` of a position
// are the same for all of them. In the cache the state is `s d`.

#include "../../common/native/memory.h"
#include "../../common/native/heads.h"

constexpr int BLOCK = 16;             // positions whose inputs and states stay in the L1 cache
constexpr int VECTORS = 64 / LANES;   // vectors of a block of 64 channels

// Sizes: heads are the blocks of channels, key the states of a channel, value the channels of a block.

struct Forward {
  View x, dt, b, c;
  const float *a, *start;  // `d s`, `b d s`
  Tensor out;
  float* end;
  int64_t channels;
};

struct Backward {
  View x, dt, b, c, dout;
  const float *a, *start, *dend;
  Tensor dx, ddt;
  float *da, *db, *dc;  // one a row `b d s`, one a block of channels `h b t s`
  float* dstart;
  int64_t channels;
};

static int block_width(const Sizes& z, int64_t channels, int64_t h) {
  int64_t left = channels - h * z.value;
  return (int)(left < z.value ? left : z.value);
}

// Rows of one channel, `d s`, to `s d`, and back.
static void turn(float* to, const float* from, int width, int row, int64_t states) {
  zero(to, states * row);
  for (int j = 0; from && j < width; j++)
    for (int64_t i = 0; i < states; i++) to[i * row + j] = from[j * states + i];
}

static void turn_back(float* to, const float* from, int width, int row, int64_t states) {
  for (int j = 0; j < width; j++)
    for (int64_t i = 0; i < states; i++) to[j * states + i] = from[i * row + j];
}

// decay = exp(z) as keep + change: near one `s * keep + s * change` is s and its loss, so that products are rounded and
// not the decay, whose rounding error would add up where it is the same at every position.
struct DecayTerms {
  Vec decay, keep, change;
  explicit DecayTerms(Vec z) {
    z = select(z > broadcast(88.f), broadcast(88.f), z);
    ScaledExp p(z);
    decay = select(z < broadcast(-87.f), Vec{}, p.excess * p.scale + p.scale);
    Int near = z > broadcast(-0.6931f);
    keep = select(near, broadcast(1.f), Vec{});
    change = select(near, p.excess * p.scale + (p.scale - broadcast(1.f)), decay);
  }
  Vec advance(Vec state, Vec write) const { return state * keep + (state * change + write); }
};

// The inputs of a block of positions, and `a` of the channels.
struct Inputs {
  int row, width, states;
  float *a, *x, *dt, *b, *c;

  Inputs(float*& scratch, const Sizes& z, int width)
      : row(round_up_to_lanes(width)), width(width), states(round_up_to_lanes(z.key)), a(take(scratch, z.key * row)),
        x(take(scratch, BLOCK * row)), dt(take(scratch, BLOCK * row)), b(take(scratch, BLOCK * states)),
        c(take(scratch, BLOCK * states)) {}

  template <class Job>
  void load(const Job& f, const Sizes& z, int64_t r, int64_t t, int64_t h, int n, int ahead) {
    pack(x, f.x, r, t, h, n, width, ahead);
    pack(dt, f.dt, r, t, h, n, width, ahead);
    pack(b, f.b, r, t, h, n, z.key, ahead);
    pack(c, f.c, r, t, h, n, z.key, ahead);
  }
};

static int64_t inputs_scratch_size(const Sizes& z) {
  int64_t row = round_up_to_lanes(z.value);
  return z.key * row + 2 * BLOCK * (row + round_up_to_lanes(z.key));
}

static void store_rows(const Tensor& to, const float* from, const Sizes& z, int64_t channels, int64_t r, int64_t t,
                       int64_t h, int n, const Inputs& in) {
  int64_t place = (r * z.length + t) * channels + h * z.value;
  for (int i = 0; i < n; i++, place += channels, from += in.row)
    for_each_vector(in.width, [&](int64_t j, int part) { store(to, place + j, vec(from + j), part); });
}

// S <- decay S + (dt x) b, out = S c, for n positions.
template <bool READ>
static void scan(float* state, const Inputs& in, int64_t states, float* out, int n) {
  for (int t = 0; t < n; t++)
    for (int j = 0; j < in.row; j += LANES) {
      Vec dt = vec(in.dt + t * in.row + j), write = dt * vec(in.x + t * in.row + j), y{};
      for (int64_t i = 0; i < states; i++) {
        Vec& s = vec(state + i * in.row + j);
        DecayTerms decay(dt * vec(in.a + i * in.row + j));
        s = decay.advance(s, write * broadcast(in.b[t * in.states + i]));
        if (READ) y += s * broadcast(in.c[t * in.states + i]);
      }
      if (READ) vec(out + t * in.row + j) = y;
    }
}

static int64_t forward_scratch_size(const Sizes& z) {
  return inputs_scratch_size(z) + (BLOCK + z.key) * round_up_to_lanes(z.value);
}

static void forward_pair(const Forward& f, const Sizes& z, int64_t r, int64_t h, float* scratch) {
  Inputs in(scratch, z, block_width(z, f.channels, h));
  float *state = take(scratch, z.key * in.row), *out = take(scratch, BLOCK * in.row);
  int64_t first = h * z.value, place = (r * f.channels + first) * z.key;
  turn(in.a, f.a + first * z.key, in.width, in.row, z.key);
  turn(state, f.start ? f.start + place : nullptr, in.width, in.row, z.key);
  for (int64_t t = 0; t < z.length; t += BLOCK) {
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    in.load(f, z, r, t, h, n, BLOCK);
    scan<true>(state, in, z.key, out, n);
    store_rows(f.out, out, z, f.channels, r, t, h, n, in);
  }
  turn_back(f.end + place, state, in.width, in.row, z.key);
}

// One position back in time, G the gradient of the state: G <- G + dout c, then the gradients of the position from G,
// the states before and after it, and G <- decay G.
struct Position {
  const float *a, *x, *dt, *b, *c, *dout, *before, *after, *decays;
  float *grad, *da, *dx, *ddt, *db, *dc;

  void back(int row, int64_t states) const {
    Vec written[VECTORS] = {}, changed[VECTORS] = {};
    for (int64_t i = 0; i < states; i++) {
      Vec read_sum{}, write_sum{};
      for (int j = 0, k = 0; j < row; j += LANES, k++) {
        int64_t place = i * row + j;
        Vec step = vec(dt + j), dy = vec(dout + j);
        Vec g = vec(grad + place) + dy * broadcast(c[i]);
        read_sum += dy * vec(after + place);
        write_sum += g * (step * vec(x + j));
        written[k] += g * broadcast(b[i]);
        Vec decayed = vec(before + place) * vec(decays + place) * g;
        changed[k] += decayed * vec(a + place);
        vec(da + place) += decayed * step;
        vec(grad + place) = DecayTerms(step * vec(a + place)).advance(g, Vec{});
      }
      dc[i] = horizontal_sum(read_sum);
      db[i] = horizontal_sum(write_sum);
    }
    for (int j = 0, k = 0; j < row; j += LANES, k++) {
      vec(dx + j) = vec(dt + j) * written[k];
      vec(ddt + j) = vec(x + j) * written[k] + changed[k];
    }
  }
};

static int64_t backward_scratch_size(const Sizes& z) {
  int64_t row = round_up_to_lanes(z.value), blocks = (z.length + BLOCK - 1) / BLOCK, state = z.key * row;
  return inputs_scratch_size(z) + 3 * BLOCK * row + (2 + 2 * BLOCK + 1 + blocks) * state;
}

static void backward_pair(const Backward& f, const Sizes& z, int64_t r, int64_t h, float* scratch) {
  Inputs in(scratch, z, block_width(z, f.channels, h));
  int64_t size = z.key * in.row, blocks = (z.length + BLOCK - 1) / BLOCK;
  float *dout = take(scratch, BLOCK * in.row), *dx = take(scratch, BLOCK * in.row), *ddt = take(scratch, BLOCK * in.row);
  float *grad = take(scratch, size), *da = take(scratch, size), *decays = take(scratch, BLOCK * size);
  float *states = take(scratch, (BLOCK + 1) * size), *starts = take(scratch, blocks * size);
  int64_t first = h * z.value, place = (r * f.channels + first) * z.key;

  turn(in.a, f.a + first * z.key, in.width, in.row, z.key);
  turn(starts, f.start ? f.start + place : nullptr, in.width, in.row, z.key);
  turn(grad, f.dend ? f.dend + place : nullptr, in.width, in.row, z.key);
  zero(da, size);
  for (int64_t block = 0; block + 1 < blocks; block++) {
    in.load(f, z, r, block * BLOCK, h, BLOCK, BLOCK);
    copy(starts + (block + 1) * size, starts + block * size, size);
    scan<false>(starts + (block + 1) * size, in, z.key, nullptr, BLOCK);
  }
  for (int64_t block = blocks - 1; block >= 0; block--) {
    int64_t t = block * BLOCK;
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    in.load(f, z, r, t, h, n, -BLOCK);
    pack(dout, f.dout, r, t, h, n, in.width, -BLOCK);
    copy(states, starts + block * size, size);
    for (int i = 0; i < n; i++)
      for (int64_t s = 0; s < z.key; s++)
        for (int j = 0; j < in.row; j += LANES) {
          Vec dt = vec(in.dt + i * in.row + j), write = dt * vec(in.x + i * in.row + j);
          DecayTerms decay(dt * vec(in.a + s * in.row + j));
          int64_t lane = s * in.row + j;
          vec(decays + i * size + lane) = decay.decay;
          vec(states + (i + 1) * size + lane) =
              decay.advance(vec(states + i * size + lane), write * broadcast(in.b[i * in.states + s]));
        }
    for (int i = n - 1; i >= 0; i--) {
      int64_t partial = ((h * z.batch + r) * z.length + t + i) * z.key, row = i * in.row;
      Position{in.a, in.x + row, in.dt + row, in.b + i * in.states, in.c + i * in.states, dout + row, states + i * size,
               states + (i + 1) * size, decays + i * size, grad, da, dx + row, ddt + row, f.db + partial,
               f.dc + partial}.back(in.row, z.key);
    }
    store_rows(f.dx, dx, z, f.channels, r, t, h, n, in);
    store_rows(f.ddt, ddt, z, f.channels, r, t, h, n, in);
  }
  turn_back(f.da + place, da, in.width, in.row, z.key);
  if (f.dstart) turn_back(f.dstart + place, grad, in.width, in.row, z.key);
}

// Both return 0, or 1 without enough memory.

extern "C" int mmrnn_selective_scan_forward(const Forward* f, const Sizes* z, int threads) {
  return for_each_head(*z, threads, forward_scratch_size(*z),
                       [=](int64_t r, int64_t h, float* scratch) { forward_pair(*f, *z, r, h, scratch); });
}

extern "C" int mmrnn_selective_scan_backward(const Backward* f, const Sizes* z, int threads) {
  return for_each_head(*z, threads, backward_scratch_size(*z),
                       [=](int64_t r, int64_t h, float* scratch) { backward_pair(*f, *z, r, h, scratch); });
}

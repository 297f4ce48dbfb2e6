// WKV-7 and its gradient in fp32, one (row, head) pair after another. ../README.md has the mathematics.

#include "../../common/native/memory.h"
#include "../../common/native/heads.h"
#include "loops.h"

struct Forward {
  View r, w, k, v, a, b;
  const float* start;
  Tensor out;
  float* end;
  int64_t logarithms;  // w are the logarithms of the decays
};

// The inputs of a block of positions, in the cache.
struct Inputs {
  float *r, *w, *k, *v, *a, *b;

  Inputs(float*& scratch, int key, int value)
      : r(take(scratch, BLOCK * key)), w(take(scratch, BLOCK * key)), k(take(scratch, BLOCK * key)),
        v(take(scratch, BLOCK * value)), a(take(scratch, BLOCK * key)), b(take(scratch, BLOCK * key)) {}

  template <class Job>
  void load(const Job& f, const Sizes& z, int64_t row, int64_t t, int64_t h, int n, int ahead) {
    pack(r, f.r, row, t, h, n, z.key, ahead);
    pack(w, f.w, row, t, h, n, z.key, ahead);
    pack(k, f.k, row, t, h, n, z.key, ahead);
    pack(v, f.v, row, t, h, n, z.value, ahead);
    pack(a, f.a, row, t, h, n, z.key, ahead);
    pack(b, f.b, row, t, h, n, z.key, ahead);
  }
};

static int64_t inputs_scratch_size(int64_t key, int64_t value) { return BLOCK * (5 * key + value); }

static int64_t forward_scratch_size(const Sizes& z) {
  int64_t key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  return inputs_scratch_size(key, value) + 2 * BLOCK * value + key * (1 + value);
}

static void read_state(float* to, const float* from, const Sizes& z) {
  for (int64_t i = 0; from && i < z.key; i++) copy(to + i * round_up_to_lanes(z.value), from + i * z.value, z.value);
}

static void forward_pair(const Forward& f, const Sizes& z, int64_t b, int64_t h, float* scratch) {
  int key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  Inputs x(scratch, key, value);
  float *u = take(scratch, BLOCK * value), *out = take(scratch, BLOCK * value);
  float *carry = take(scratch, key), *state = take(scratch, key * value);
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(carry, key * (1 + value));  // and the state after it
  read_state(state, f.start ? f.start + pair * size : nullptr, z);
  for (int64_t t = 0; t < z.length; t += BLOCK) {
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    x.load(f, z, b, t, h, n, BLOCK);
    decays(x.w, nullptr, carry, n, key, f.logarithms);
    zero(u, BLOCK * value);
    BY_PANEL(value, (forwards<N, true>(state + lane, key, value, x.r, x.w, x.k, x.v + lane, x.a, x.b, u + lane,
                                       out + lane, n)));
    unpack(f.out, out, z, b, t, h, n, z.value);
  }
  for (int i = 0; i < z.key; i++)
    copy(f.end + pair * size + i * z.value, state + i * value, z.value);
}

struct Backward {
  View r, w, k, v, a, b, dout;
  const float *start, *dend;
  Tensor dr, dw, dk, dv, da, db;
  float* dstart;
  int64_t logarithms;
};

static int64_t backward_scratch_size(const Sizes& z) {
  int64_t key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value), blocks = (z.length + BLOCK - 1) / BLOCK;
  int64_t states = BLOCK * REGISTERS * LANES, every = key + (key + BLOCK) * value;
  return inputs_scratch_size(key, value) + BLOCK * (6 * key + 3 * value) + 3 * key * value + states + blocks * every;
}

static void transpose(float* to, const float* from, int key, int value) {
  for (int i = 0; i < key; i++)
    for (int j = 0; j < value; j++) to[j * key + i] = from[i * value + j];
}

static void backward_pair(const Backward& f, const Sizes& z, int64_t b, int64_t h, float* scratch) {
  int key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  int64_t last = (z.length - 1) / BLOCK, blocks = last + 1;
  Inputs x(scratch, key, value);
  float *dr = take(scratch, BLOCK * key), *dk = take(scratch, BLOCK * key), *da = take(scratch, BLOCK * key);
  float *db = take(scratch, BLOCK * key), *dd = take(scratch, BLOCK * key), *slope = take(scratch, BLOCK * key);
  float *dout = take(scratch, BLOCK * value), *du = take(scratch, BLOCK * value), *dv = take(scratch, BLOCK * value);
  float *grad = take(scratch, key * value), *transposed = take(scratch, key * value);
  float* from = take(scratch, key * value);
  float* states = take(scratch, BLOCK * REGISTERS * LANES);
  // One a block: rounding errors of the decays before it, the state it starts from, u of its positions.
  float *carries = take(scratch, key * blocks), *starts = take(scratch, key * value * blocks);
  float* u = take(scratch, BLOCK * value * blocks);
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(grad, key * value);
  zero(starts, key * value);
  zero(carries, key);
  zero(u, BLOCK * value * blocks);
  read_state(starts, f.start ? f.start + pair * size : nullptr, z);
  read_state(grad, f.dend ? f.dend + pair * size : nullptr, z);
  transpose(transposed, grad, key, value);

  for (int64_t block = 0; block <= last; block++) {
    int64_t t = block * BLOCK;
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    float *carry = carries + block * key, *state = starts + block * key * value, *block_u = u + block * BLOCK * value;
    x.load(f, z, b, t, h, n, BLOCK);
    if (block < last) {
      copy(carry + key, carry, key);
      copy(state + key * value, state, key * value);
      carry += key, state += key * value;
    } else {  // no block follows the last one
      copy(slope, carry, key);
      copy(from, state, key * value);
      carry = slope, state = from;
    }
    decays(x.w, nullptr, carry, n, key, f.logarithms);
    BY_PANEL(value, (forwards<N, false>(state + lane, key, value, x.r, x.w, x.k, x.v + lane, x.a, x.b, block_u + lane,
                                        nullptr, n)));
  }

  for (int64_t block = last; block >= 0; block--) {
    int64_t t = block * BLOCK;
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    const float* block_u = u + block * BLOCK * value;
    x.load(f, z, b, t, h, n, -BLOCK);
    pack(dout, f.dout, b, t, h, n, z.value, -BLOCK);
    decays(x.w, slope, carries + block * key, n, key, f.logarithms);
    BY_PANEL(value, (backwards<N>(grad + lane, key, value, x.r, x.w, x.k, x.a, x.b, dout + lane, du + lane,
                                  dv + lane, n)));
    zero(dr, 5 * BLOCK * key);  // and dk, da, db, dd after it
    transpose(from, starts + block * key * value, key, value);
    Block inputs = {x.r, x.w, x.k, x.v, x.a, x.b, dout, block_u, du, dr, dk, da, db, dd};
    BY_PANEL(key, (accumulate_gradients<N>(from, transposed, states, key, value, inputs, lane, n)));
    for (int i = 0; i < n * key; i += LANES) vec(dd + i) *= vec(slope + i);

    unpack(f.dr, dr, z, b, t, h, n, z.key);
    unpack(f.dw, dd, z, b, t, h, n, z.key);
    unpack(f.dk, dk, z, b, t, h, n, z.key);
    unpack(f.dv, dv, z, b, t, h, n, z.value);
    unpack(f.da, da, z, b, t, h, n, z.key);
    unpack(f.db, db, z, b, t, h, n, z.key);
  }
  if (f.dstart)
    for (int i = 0; i < z.key; i++)
      copy(f.dstart + pair * size + i * z.value, grad + i * value, z.value);
}

// Both return 0, or 1 without enough memory.

extern "C" int mmrnn_wkv7_forward(const Forward* f, const Sizes* z, int threads) {
  return for_each_head(*z, threads, forward_scratch_size(*z),
                    [=](int64_t b, int64_t h, float* scratch) { forward_pair(*f, *z, b, h, scratch); });
}

extern "C" int mmrnn_wkv7_backward(const Backward* f, const Sizes* z, int threads) {
  return for_each_head(*z, threads, backward_scratch_size(*z),
                    [=](int64_t b, int64_t h, float* scratch) { backward_pair(*f, *z, b, h, scratch); });
}

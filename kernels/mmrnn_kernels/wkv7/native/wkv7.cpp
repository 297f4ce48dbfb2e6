// WKV-7 and its gradient in fp32, one (row, head) pair after another. The maths is in ../README.md.

#include "../../common/native/memory.h"
#include "../../common/native/pairs.h"
#include "loops.h"

struct Forward {
  View r, w, k, v, a, b;
  const float* start;
  Tensor out;
  float* end;
};

// The inputs of a block of positions, in the cache.
struct Inputs {
  float *r, *w, *k, *v, *a, *b;

  Inputs(float*& room, int key, int value)
      : r(take(room, BLOCK * key)), w(take(room, BLOCK * key)), k(take(room, BLOCK * key)),
        v(take(room, BLOCK * value)), a(take(room, BLOCK * key)), b(take(room, BLOCK * key)) {}

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

static int64_t inputs_room(int64_t key, int64_t value) { return BLOCK * (5 * key + value); }

static int64_t forward_room(const Sizes& z) {
  int64_t key = whole(z.key), value = whole(z.value);
  return inputs_room(key, value) + 2 * BLOCK * value + key * (1 + value);
}

static void read_state(float* to, const float* from, const Sizes& z) {
  for (int64_t i = 0; from && i < z.key; i++) copy(to + i * whole(z.value), from + i * z.value, z.value);
}

static void forward_pair(const Forward& f, const Sizes& z, int64_t b, int64_t h, float* room) {
  int key = whole(z.key), value = whole(z.value);
  Inputs x(room, key, value);
  float *met = take(room, BLOCK * value), *out = take(room, BLOCK * value);
  float *rest = take(room, key), *state = take(room, key * value);
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(rest, key * (1 + value));  // and what follows: state
  read_state(state, f.start ? f.start + pair * size : nullptr, z);
  for (int64_t t = 0; t < z.length; t += BLOCK) {
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    x.load(f, z, b, t, h, n, BLOCK);
    decays(x.w, nullptr, rest, n, key);
    zero(met, BLOCK * value);
    BY_PANEL(value, (forwards<N, true>(state + lane, key, value, x.r, x.w, x.k, x.v + lane, x.a, x.b, met + lane,
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
};

static int64_t backward_room(const Sizes& z) {
  int64_t key = whole(z.key), value = whole(z.value), blocks = (z.length + BLOCK - 1) / BLOCK;
  int64_t kept = BLOCK * REGISTERS * LANES, every = key + (key + BLOCK) * value;
  return inputs_room(key, value) + BLOCK * (6 * key + 3 * value) + 3 * key * value + kept + blocks * every;
}

static void turn(float* to, const float* from, int key, int value) {
  for (int i = 0; i < key; i++)
    for (int j = 0; j < value; j++) to[j * key + i] = from[i * value + j];
}

static void backward_pair(const Backward& f, const Sizes& z, int64_t b, int64_t h, float* room) {
  int key = whole(z.key), value = whole(z.value);
  int64_t last = (z.length - 1) / BLOCK, blocks = last + 1;
  Inputs x(room, key, value);
  float *dr = take(room, BLOCK * key), *dk = take(room, BLOCK * key), *da = take(room, BLOCK * key);
  float *db = take(room, BLOCK * key), *dd = take(room, BLOCK * key), *slope = take(room, BLOCK * key);
  float *dout = take(room, BLOCK * value), *dmet = take(room, BLOCK * value), *dv = take(room, BLOCK * value);
  float *grad = take(room, key * value), *turned = take(room, key * value), *from = take(room, key * value);
  float* kept = take(room, BLOCK * REGISTERS * LANES);
  // One a block: the rest of its decays, the state it starts from, what its positions meet.
  float *rests = take(room, key * blocks), *starts = take(room, key * value * blocks);
  float* met = take(room, BLOCK * value * blocks);
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(grad, key * value);
  zero(starts, key * value);
  zero(rests, key);
  zero(met, BLOCK * value * blocks);
  read_state(starts, f.start ? f.start + pair * size : nullptr, z);
  read_state(grad, f.dend ? f.dend + pair * size : nullptr, z);
  turn(turned, grad, key, value);

  for (int64_t block = 0; block <= last; block++) {
    int64_t t = block * BLOCK;
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    float *rest = rests + block * key, *state = starts + block * key * value, *seen = met + block * BLOCK * value;
    x.load(f, z, b, t, h, n, BLOCK);
    if (block < last) {
      copy(rest + key, rest, key);
      copy(state + key * value, state, key * value);
      rest += key, state += key * value;
    } else {  // nothing goes on from the last block
      copy(slope, rest, key);
      copy(from, state, key * value);
      rest = slope, state = from;
    }
    decays(x.w, nullptr, rest, n, key);
    BY_PANEL(value, (forwards<N, false>(state + lane, key, value, x.r, x.w, x.k, x.v + lane, x.a, x.b, seen + lane,
                                        nullptr, n)));
  }

  for (int64_t block = last; block >= 0; block--) {
    int64_t t = block * BLOCK;
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    const float* seen = met + block * BLOCK * value;
    x.load(f, z, b, t, h, n, -BLOCK);
    pack(dout, f.dout, b, t, h, n, z.value, -BLOCK);
    decays(x.w, slope, rests + block * key, n, key);
    BY_PANEL(value, (backwards<N>(grad + lane, key, value, x.r, x.w, x.k, x.a, x.b, dout + lane, dmet + lane,
                                  dv + lane, n)));
    zero(dr, 5 * BLOCK * key);  // and what follows: dk, da, db, dd
    turn(from, starts + block * key * value, key, value);
    Block all_of_it = {x.r, x.w, x.k, x.v, x.a, x.b, dout, seen, dmet, dr, dk, da, db, dd};
    BY_PANEL(key, (meet<N>(from, turned, kept, key, value, all_of_it, lane, n)));
    for (int i = 0; i < n * key; i += LANES) at(dd + i) *= at(slope + i);

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

// Both answer 0, or 1 where there is not enough memory.

extern "C" int mmrnn_wkv7_forward(const Forward* f, const Sizes* z, int threads) {
  return every_pair(*z, threads, forward_room(*z),
                    [=](int64_t b, int64_t h, float* room) { forward_pair(*f, *z, b, h, room); });
}

extern "C" int mmrnn_wkv7_backward(const Backward* f, const Sizes* z, int threads) {
  return every_pair(*z, threads, backward_room(*z),
                    [=](int64_t b, int64_t h, float* room) { backward_pair(*f, *z, b, h, room); });
}

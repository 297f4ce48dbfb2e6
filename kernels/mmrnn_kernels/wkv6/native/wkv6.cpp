// WKV-5 and WKV-6 and their gradients in fp32, of inputs that may be bf16, one (row, head) pair after another. The maths is in ../README.md.

#include "../../common/native/loops.h"
#include "../../common/native/memory.h"
#include "../../common/native/pairs.h"

static float bonus(const float* r, const float* u, const float* k, int key) {
  Vec sum{};
  for (int i = 0; i < key; i += LANES) sum += at(r + i) * at(u + i) * at(k + i);
  return total(sum);
}

struct Forward {
  View r, k, v, w;
  const float *u, *start;
  Tensor out;
  float* end;
};

static int64_t forward_room(const Sizes& z) {
  int64_t key = whole(z.key), value = whole(z.value);
  return key * (3 * BLOCK + 2) + value * 2 * BLOCK + key * value;
}

static void forward_pair(const Forward& f, const Sizes& z, int64_t b, int64_t h, float* room) {
  int key = whole(z.key), value = whole(z.value);
  float *r = take(room, BLOCK * key), *k = take(room, BLOCK * key), *w = take(room, BLOCK * key);
  float *v = take(room, BLOCK * value), *out = take(room, BLOCK * value);
  float *u = take(room, key), *rest = take(room, key), *state = take(room, key * value);
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(u, key * (2 + value));  // and what follows: rest, state
  copy(u, f.u + h * z.key, z.key);
  if (f.start)
    for (int i = 0; i < z.key; i++)
      copy(state + i * value, f.start + pair * size + i * z.value, z.value);

  for (int64_t t = 0; t < z.length; t += BLOCK) {
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    pack(r, f.r, b, t, h, n, z.key, BLOCK);
    pack(k, f.k, b, t, h, n, z.key, BLOCK);
    pack(v, f.v, b, t, h, n, z.value, BLOCK);
    pack(w, f.w, b, t, h, n, z.key, BLOCK);
    decays(w, nullptr, rest, n, key);
    for (int i = 0; i < n; i++) {
      Vec shared = all(bonus(r + i * key, u, k + i * key, key));
      for (int j = 0; j < value; j += LANES) at(out + i * value + j) = shared * at(v + i * value + j);
    }
    BY_PANEL(value, (sweep<N, false>(state + lane, key, value, r, k, w, v + lane, out + lane, n)));
    unpack(f.out, out, z, b, t, h, n, z.value);
  }
  for (int i = 0; i < z.key; i++)
    copy(f.end + pair * size + i * z.value, state + i * value, z.value);
}

struct Backward {
  View r, k, v, w, dout;
  const float *u, *start, *dend;
  Tensor dr, dk, dv, dw;
  float *du, *dstart;
  int64_t constant;  // w is `h k`, the same at every position, and so is its gradient, then fp32
};

static int64_t backward_room(const Sizes& z) {
  int64_t key = whole(z.key), value = whole(z.value), blocks = (z.length + BLOCK - 1) / BLOCK;
  int64_t kept = BLOCK * REGISTERS * LANES;
  return key * (7 * BLOCK + 2) + value * 3 * BLOCK + key * value * (2 + blocks) + key * blocks + kept;
}

// The gradients of u, and of w where it is the same at every position, are added up in `sums`, 2 key.
static void backward_pair(const Backward& f, const Sizes& z, int64_t b, int64_t h, float* room, double* sums) {
  int key = whole(z.key), value = whole(z.value);
  int64_t last = (z.length - 1) / BLOCK, blocks = last + 1;
  float *r = take(room, BLOCK * key), *k = take(room, BLOCK * key), *w = take(room, BLOCK * key);
  float *slope = take(room, BLOCK * key), *dr = take(room, BLOCK * key), *dk = take(room, BLOCK * key);
  float* met = take(room, BLOCK * key);
  float *v = take(room, BLOCK * value), *dout = take(room, BLOCK * value), *dv = take(room, BLOCK * value);
  float *u = take(room, key), *du = take(room, key);
  float *grad = take(room, key * value), *turned = take(room, key * value);
  float* kept = take(room, BLOCK * REGISTERS * LANES);
  float *rests = take(room, key * blocks), *starts = take(room, key * value * blocks);  // one a block
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(u, key);
  copy(u, f.u + h * z.key, z.key);
  zero(grad, 2 * key * value);
  zero(starts, key * value);
  zero(rests, key);
  for (int i = 0; i < z.key; i++) {
    const int64_t from = pair * size + i * z.value;
    if (f.dend) copy(grad + i * value, f.dend + from, z.value);
    for (int j = 0; j < z.value; j++) {
      if (f.dend) turned[j * key + i] = f.dend[from + j];
      if (f.start) starts[j * key + i] = f.start[from + j];
    }
  }

  for (int64_t block = 0; block < last; block++) {
    int64_t t = block * BLOCK;
    pack(k, f.k, b, t, h, BLOCK, z.key, BLOCK);
    pack(v, f.v, b, t, h, BLOCK, z.value, BLOCK);
    pack(w, f.w, b, t, h, BLOCK, z.key, BLOCK);
    float* rest = rests + block * key;
    copy(rest + key, rest, key);
    decays(w, nullptr, rest + key, BLOCK, key);
    const float* from = starts + block * key * value;
    BY_PANEL(key, (advance<N>(from + lane, starts + (block + 1) * key * value + lane, key, value, k + lane, v,
                              w + lane, BLOCK)));
  }

  for (int64_t block = last; block >= 0; block--) {
    int64_t t = block * BLOCK;
    int n = (int)(z.length - t < BLOCK ? z.length - t : BLOCK);
    pack(r, f.r, b, t, h, n, z.key, -BLOCK);
    pack(k, f.k, b, t, h, n, z.key, -BLOCK);
    pack(v, f.v, b, t, h, n, z.value, -BLOCK);
    pack(w, f.w, b, t, h, n, z.key, -BLOCK);
    pack(dout, f.dout, b, t, h, n, z.value, -BLOCK);
    decays(w, slope, rests + block * key, n, key);
    zero(dr, n * key);
    zero(dk, n * key);
    zero(met, n * key);
    const float* start = starts + block * key * value;
    BY_PANEL(key, (meet<N>(start + lane, turned + lane, kept, key, value, r + lane, k + lane, v, w + lane, dout,
                           dr + lane, dk + lane, met + lane, n)));

    zero(du, key);
    for (int i = 0; i < n; i++) {
      const float *ri = r + i * key, *ki = k + i * key, *gi = dout + i * value, *vi = v + i * value;
      Vec product{};
      for (int j = 0; j < value; j += LANES) product += at(gi + j) * at(vi + j);
      Vec shared = all(total(product)), own = all(bonus(ri, u, ki, key));
      for (int j = 0; j < value; j += LANES) at(dv + i * value + j) = own * at(gi + j);
      for (int j = 0; j < key; j += LANES) {
        Vec scaled = shared * at(u + j);
        at(dr + i * key + j) += scaled * at(ki + j);
        at(dk + i * key + j) += scaled * at(ri + j);
        at(met + i * key + j) *= at(slope + i * key + j);
        at(du + j) += shared * at(ri + j) * at(ki + j);
      }
    }
    BY_PANEL(value, (sweep<N, true>(grad + lane, key, value, k, r, w, dout + lane, dv + lane, n)));

    unpack(f.dr, dr, z, b, t, h, n, z.key);
    unpack(f.dk, dk, z, b, t, h, n, z.key);
    unpack(f.dv, dv, z, b, t, h, n, z.value);
    for (int j = 0; j < z.key; j++) sums[j] += du[j];
    if (!f.constant) unpack(f.dw, met, z, b, t, h, n, z.key);
    for (int i = 0; f.constant && i < n; i++)
      for (int j = 0; j < z.key; j++) sums[z.key + j] += met[i * key + j];
  }
  if (f.dstart)
    for (int i = 0; i < z.key; i++)
      copy(f.dstart + pair * size + i * z.value, grad + i * value, z.value);
}

// Both answer 0, or 1 where there is not enough memory.

extern "C" int mmrnn_wkv6_forward(const Forward* f, const Sizes* z, int threads) {
  return every_pair(*z, threads, forward_room(*z),
                    [=](int64_t b, int64_t h, float* room) { forward_pair(*f, *z, b, h, room); });
}

extern "C" int mmrnn_wkv6_backward(const Backward* f, const Sizes* z, int threads) {
  int64_t pairs = z->batch * z->heads, key = z->key;
  double* sums = (double*)calloc(pairs * 2 * key, sizeof(double));
  if (!sums) return 1;
  int failed = every_pair(*z, threads, backward_room(*z), [=](int64_t b, int64_t h, float* room) {
    backward_pair(*f, *z, b, h, room, sums + (b * z->heads + h) * 2 * key);
  });
  for (int64_t i = 0; i < z->heads * key; i++) {
    double du = 0, dw = 0;
    for (int64_t b = 0; b < z->batch; b++) {
      const double* own = sums + (b * z->heads + i / key) * 2 * key + i % key;
      du += own[0];
      dw += own[key];
    }
    f->du[i] = (float)du;
    if (f->constant) ((float*)f->dw.data)[i] = (float)dw;
  }
  free(sums);
  return failed;
}

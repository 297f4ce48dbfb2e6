// WKV-5 and WKV-6 and their gradients in fp32, of inputs in fp32 or bf16, one (row, head) pair after another.
// ../README.md has the mathematics.

#include "../../common/native/heads.h"
#include "../../common/native/memory.h"
#include "loops.h"

static float bonus(const float* r, const float* u, const float* k, int key) {
  Vec sum{};
  for (int i = 0; i < key; i += LANES) sum += vec(r + i) * vec(u + i) * vec(k + i);
  return horizontal_sum(sum);
}

struct Forward {
  View r, k, v, w;
  const float *u, *start;
  Tensor out;
  float* end;
};

static int64_t forward_scratch_size(const Sizes& z) {
  int64_t key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  return key * (3 * BLOCK + 2) + value * 2 * BLOCK + key * value;
}

static void forward_pair(const Forward& f, const Sizes& z, int64_t b, int64_t h, float* scratch) {
  int key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  float *r = take(scratch, BLOCK * key), *k = take(scratch, BLOCK * key), *w = take(scratch, BLOCK * key);
  float *v = take(scratch, BLOCK * value), *out = take(scratch, BLOCK * value);
  float *u = take(scratch, key), *carry = take(scratch, key), *state = take(scratch, key * value);
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(u, key * (2 + value));  // and carry and state after it
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
    decays(w, nullptr, carry, n, key);
    for (int i = 0; i < n; i++) {
      Vec shared = broadcast(bonus(r + i * key, u, k + i * key, key));
      for (int j = 0; j < value; j += LANES) vec(out + i * value + j) = shared * vec(v + i * value + j);
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
  int64_t constant;  // w is `h k`, one decay for all positions; its gradient is then fp32
};

static int64_t backward_scratch_size(const Sizes& z) {
  int64_t key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value), blocks = (z.length + BLOCK - 1) / BLOCK;
  int64_t states = BLOCK * REGISTERS * LANES;
  return key * (7 * BLOCK + 2) + value * 3 * BLOCK + key * value * (2 + blocks) + key * blocks + states;
}

// The gradients of u, and of a constant w, are added to `sums`, 2 key.
static void backward_pair(const Backward& f, const Sizes& z, int64_t b, int64_t h, float* scratch, double* sums) {
  int key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  int64_t last = (z.length - 1) / BLOCK, blocks = last + 1;
  float *r = take(scratch, BLOCK * key), *k = take(scratch, BLOCK * key), *w = take(scratch, BLOCK * key);
  float *slope = take(scratch, BLOCK * key), *dr = take(scratch, BLOCK * key), *dk = take(scratch, BLOCK * key);
  float* dlog = take(scratch, BLOCK * key);
  float *v = take(scratch, BLOCK * value), *dout = take(scratch, BLOCK * value), *dv = take(scratch, BLOCK * value);
  float *u = take(scratch, key), *du = take(scratch, key);
  float *grad = take(scratch, key * value), *transposed = take(scratch, key * value);
  float* states = take(scratch, BLOCK * REGISTERS * LANES);
  float *carries = take(scratch, key * blocks), *starts = take(scratch, key * value * blocks);  // one a block
  int64_t pair = b * z.heads + h, size = z.key * z.value;

  zero(u, key);
  copy(u, f.u + h * z.key, z.key);
  zero(grad, 2 * key * value);
  zero(starts, key * value);
  zero(carries, key);
  for (int i = 0; i < z.key; i++) {
    const int64_t from = pair * size + i * z.value;
    if (f.dend) copy(grad + i * value, f.dend + from, z.value);
    for (int j = 0; j < z.value; j++) {
      if (f.dend) transposed[j * key + i] = f.dend[from + j];
      if (f.start) starts[j * key + i] = f.start[from + j];
    }
  }

  for (int64_t block = 0; block < last; block++) {
    int64_t t = block * BLOCK;
    pack(k, f.k, b, t, h, BLOCK, z.key, BLOCK);
    pack(v, f.v, b, t, h, BLOCK, z.value, BLOCK);
    pack(w, f.w, b, t, h, BLOCK, z.key, BLOCK);
    float* carry = carries + block * key;
    copy(carry + key, carry, key);
    decays(w, nullptr, carry + key, BLOCK, key);
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
    decays(w, slope, carries + block * key, n, key);
    zero(dr, n * key);
    zero(dk, n * key);
    zero(dlog, n * key);
    const float* start = starts + block * key * value;
    BY_PANEL(key, (accumulate_gradients<N>(start + lane, transposed + lane, states, key, value, r + lane, k + lane, v,
                                           w + lane, dout, dr + lane, dk + lane, dlog + lane, n)));

    zero(du, key);
    for (int i = 0; i < n; i++) {
      const float *ri = r + i * key, *ki = k + i * key, *gi = dout + i * value, *vi = v + i * value;
      Vec product{};
      for (int j = 0; j < value; j += LANES) product += vec(gi + j) * vec(vi + j);
      Vec shared = broadcast(horizontal_sum(product)), own = broadcast(bonus(ri, u, ki, key));
      for (int j = 0; j < value; j += LANES) vec(dv + i * value + j) = own * vec(gi + j);
      for (int j = 0; j < key; j += LANES) {
        Vec scaled = shared * vec(u + j);
        vec(dr + i * key + j) += scaled * vec(ki + j);
        vec(dk + i * key + j) += scaled * vec(ri + j);
        vec(dlog + i * key + j) *= vec(slope + i * key + j);
        vec(du + j) += shared * vec(ri + j) * vec(ki + j);
      }
    }
    BY_PANEL(value, (sweep<N, true>(grad + lane, key, value, k, r, w, dout + lane, dv + lane, n)));

    unpack(f.dr, dr, z, b, t, h, n, z.key);
    unpack(f.dk, dk, z, b, t, h, n, z.key);
    unpack(f.dv, dv, z, b, t, h, n, z.value);
    for (int j = 0; j < z.key; j++) sums[j] += du[j];
    if (!f.constant) unpack(f.dw, dlog, z, b, t, h, n, z.key);
    for (int i = 0; f.constant && i < n; i++)
      for (int j = 0; j < z.key; j++) sums[z.key + j] += dlog[i * key + j];
  }
  if (f.dstart)
    for (int i = 0; i < z.key; i++)
      copy(f.dstart + pair * size + i * z.value, grad + i * value, z.value);
}

// Both return 0, or 1 without enough memory.

extern "C" int mmrnn_wkv6_forward(const Forward* f, const Sizes* z, int threads) {
  return for_each_head(*z, threads, forward_scratch_size(*z),
                    [=](int64_t b, int64_t h, float* scratch) { forward_pair(*f, *z, b, h, scratch); });
}

extern "C" int mmrnn_wkv6_backward(const Backward* f, const Sizes* z, int threads) {
  int64_t pairs = z->batch * z->heads, key = z->key;
  double* sums = (double*)calloc(pairs * 2 * key, sizeof(double));
  if (!sums) return 1;
  int failed = for_each_head(*z, threads, backward_scratch_size(*z), [=](int64_t b, int64_t h, float* scratch) {
    backward_pair(*f, *z, b, h, scratch, sums + (b * z->heads + h) * 2 * key);
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

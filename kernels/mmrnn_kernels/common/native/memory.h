// Blocks of the inputs and outputs, packed in the cache. Sizes are padded with zeros to whole vectors.

#pragma once

#include "tensors.h"

// An input `b t h c` with any strides, the last of them one. Without data it is all zeros.
struct View {
  Tensor rows;
  int64_t batch, time, head;
};

struct Sizes {
  int64_t batch, length, heads, key, value;
};

static inline void copy(float* to, const float* from, int64_t size) {
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) unaligned(to + i) = unaligned(from + i);
  for (; i < size; i++) to[i] = from[i];
}

static inline void zero(float* x, int64_t size) { memset(x, 0, sizeof(float) * size); }

// Packs `n` positions from `t` on, and prefetches those `ahead` positions further, which are packed next.
static void pack(float* to, const View& from, int64_t b, int64_t t, int64_t h, int n, int64_t width, int ahead) {
  int row = round_up_to_lanes(width), bytes = from.rows.is_bf16 ? 2 : 4;
  if (!from.rows.data) return zero(to, n * row);
  int64_t source = b * from.batch + t * from.time + h * from.head;
  for (int i = 0; i < n; i++, to += row, source += from.time) {
    for_each_vector(width, [&](int64_t j, int part) { vec(to + j) = load(from.rows, source + j, part); });
    const char* next = (const char*)from.rows.data + (source + ahead * from.time) * bytes;
    for (int64_t j = 0; j < width * bytes; j += 64) __builtin_prefetch(next + j, 0, 2);
  }
}

// Writes into a contiguous `b t h c`.
static void unpack(const Tensor& to, const float* from, const Sizes& z, int64_t b, int64_t t, int64_t h, int n,
                   int64_t width) {
  int64_t place = ((b * z.length + t) * z.heads + h) * width;
  for (int i = 0; i < n; i++, place += z.heads * width, from += round_up_to_lanes(width))
    for_each_vector(width, [&](int64_t j, int part) { store(to, place + j, vec(from + j), part); });
}

// Pre-activations to decays exp(-exp(w)), in place, and optionally to the slope -exp(w) exp(-exp(w)); logarithms of
// decays to exp(w), and to the slope exp(w).
//
// Near one a decay has fewer digits than 1 - decay, and its rounding error, the same at every position of WKV-5, would
// add up along the sequence. So the error of one position is added at the next, through `carry` (one number a column).
static void decays(float* w, float* slope, float* carry, int n, int row, bool logarithms = false) {
  for (int j = 0; j < row; j += LANES) {
    Vec carried = vec(carry + j);
    for (int i = j; i < n * row; i += row) {
      Vec x = vec(w + i);
      // Above 10 the decay is 0 in any case, and 0 * exp(w) must not become 0 * inf.
      Vec rate = logarithms ? select(x < broadcast(-200.f), broadcast(200.f), -x)
                            : exp_flushed(select(x > broadcast(10.f), broadcast(10.f), x));
      Vec decay = exp_flushed(-rate);
      if (slope) vec(slope + i) = logarithms ? decay : -rate * decay;
      ScaledExp p(-rate);
      Vec wanted = p.excess * p.scale + (p.scale - broadcast(1.f)) + carried;  // decay - 1
      // Where decay - 1 is more exact than the decay; ScaledExp holds for small rates only.
      Int long_lived = rate < broadcast(0.6931f);
      Vec rounded = broadcast(1.f) + wanted;
      vec(w + i) = select(long_lived, rounded, decay);
      carried = select(long_lived, wanted - (rounded - broadcast(1.f)), Vec{});
    }
    vec(carry + j) = carried;
  }
}

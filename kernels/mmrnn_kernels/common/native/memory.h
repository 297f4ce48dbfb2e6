// Pieces of the inputs and outputs, brought together in the cache. Sizes are filled up with zeros to whole vectors.

#pragma once

#include "rows.h"

// An input `b t h c` with any strides but the last, which is one. Without data it is all zeros.
struct View {
  Tensor rows;
  int64_t batch, time, head;
};

struct Sizes {
  int64_t batch, length, heads, key, value;
};

static inline void copy(float* to, const float* from, int64_t size) {
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) anywhere(to + i) = anywhere(from + i);
  for (; i < size; i++) to[i] = from[i];
}

static inline void zero(float* x, int64_t size) { memset(x, 0, sizeof(float) * size); }

// `n` positions from `t` on. What will be packed next lies `ahead` positions further and is called for already.
static void pack(float* to, const View& from, int64_t b, int64_t t, int64_t h, int n, int64_t width, int ahead) {
  int row = whole(width), bytes = from.rows.half ? 2 : 4;
  if (!from.rows.data) return zero(to, n * row);
  int64_t source = b * from.batch + t * from.time + h * from.head;
  for (int i = 0; i < n; i++, to += row, source += from.time) {
    along(width, [&](int64_t j, int part) { at(to + j) = load(from.rows, source + j, part); });
    const char* next = (const char*)from.rows.data + (source + ahead * from.time) * bytes;
    for (int64_t j = 0; j < width * bytes; j += 64) __builtin_prefetch(next + j, 0, 2);
  }
}

// Writes into a contiguous `b t h c`.
static void unpack(const Tensor& to, const float* from, const Sizes& z, int64_t b, int64_t t, int64_t h, int n,
                   int64_t width) {
  int64_t place = ((b * z.length + t) * z.heads + h) * width;
  for (int i = 0; i < n; i++, place += z.heads * width, from += whole(width))
    along(width, [&](int64_t j, int part) { store(to, place + j, at(from + j), part); });
}

// Pre-activations to decays exp(-exp(w)), in place, and if asked for to the slope -exp(w) exp(-exp(w)).
//
// Near one a decay has fewer digits than 1 - decay, and its rounding, the same at every position of WKV-5, would add up
// along the sequence. So what one position loses is handed to the next in `rest` (one number a column).
static void decays(float* w, float* slope, float* rest, int n, int row) {
  for (int j = 0; j < row; j += LANES) {
    Vec carried = at(rest + j);
    for (int i = j; i < n * row; i += row) {
      Vec x = at(w + i);
      // Above 10 the decay is 0 in any case, and 0 * exp(w) must not become 0 * inf.
      Vec rate = exponential(choose(x > all(10.f), all(10.f), x));
      Vec decay = exponential(-rate);
      if (slope) at(slope + i) = -rate * decay;
      Power p(-rate);
      Vec wanted = p.excess * p.scale + (p.scale - all(1.f)) + carried;  // decay - 1
      Int long_lived = rate < all(0.6931f);  // where decay - 1 is the exact one; Power holds for small rates only
      Vec rounded = all(1.f) + wanted;
      at(w + i) = choose(long_lived, rounded, decay);
      carried = choose(long_lived, wanted - (rounded - all(1.f)), Vec{});
    }
    at(rest + j) = carried;
  }
}

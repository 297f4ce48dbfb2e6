// Products of a few fp32 rows with a matrix in fp32, bf16 or 8-bit codes that is read once and in place. Memory
// bandwidth bounds them, so every weight is loaded once for up to ROWS rows. All sums are fp32.
//
// Every thread of a team calls each function, which divides its work among them without a barrier at its end.

#pragma once

#include "../../common/native/vector.h"

typedef uint16_t Half;  // bf16: the upper half of a float
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));

static inline Vec load(const float* p) { return unaligned(p); }
static inline Vec load(const Half* p) {
  return (Vec)(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), Int) << 16);
}

typedef int8_t Code;
typedef Code Codes __attribute__((vector_size(LANES), aligned(1)));
typedef int16_t Shorts __attribute__((vector_size(2 * LANES)));

static inline Vec load(const Code* p) {
  // GCC widens vectors by a factor of two in one instruction, by four in one for each element.
  Shorts wide = __builtin_convertvector(*reinterpret_cast<const Codes*>(p), Shorts);
  return __builtin_convertvector(__builtin_convertvector(wide, Int), Vec);
}

static inline float scalar(const float* p) { return *p; }
static inline float scalar(const Half* p) {
  uint32_t bits = (uint32_t)*p << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

static inline void store(float* p, Vec x) { unaligned(p) = x; }
static inline void store(Half* p, Vec x) {  // to the nearest, ties to even
  Int bits = (Int)x, even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Int nan = x != x;
  *reinterpret_cast<Halves*>(p) = __builtin_convertvector((nan & 0x7fc0) | (~nan & even), Halves);
}

// A core reads half as much again from memory when it reads several distant places at once, so a matrix is read in
// STREAMS parts in parallel, each from its first row to its last.
constexpr int STREAMS = 8;
constexpr int ROWS = LANES == 16 ? 3 : 1;  // rows that there are registers of sums for
constexpr int AHEAD = 256;                 // weights between a load and its prefetch

// Holds a vector in a register, where a compiler would read it from memory again for each product.
static inline void hold(Vec& x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#endif
}

// Products of STREAMS rows of the weights with R rows; `first`: the weights are not in the cache yet.
template <class T, int R>
static void dots(const T* w, const float* scales, int64_t part, const float* x, int64_t stride, float* y, int64_t out,
                 int64_t in, bool first) {
  Vec sum[STREAMS][R] = {};
  for (int64_t k = 0; k < in; k += LANES) {
    for (int i = 0; i < STREAMS; i++) {
      const T* from = w + i * part * in + k;
      if (first) __builtin_prefetch(from + AHEAD);
      Vec weight = load(from);
      if (R > 1) hold(weight);
      for (int r = 0; r < R; r++) sum[i][r] += weight * load(x + r * stride + k);
    }
  }
  for (int i = 0; i < STREAMS; i++)
    for (int r = 0; r < R; r++)
      y[r * out + i * part] = horizontal_sum(sum[i][r]) * (scales ? scales[i * part] : 1.f);
}

template <class T>
static void dot(const T* w, float scale, const float* x, float* y, int64_t in) {
  Vec sum{};
  for (int64_t k = 0; k < in; k += LANES) sum += load(w + k) * load(x + k);
  *y = horizontal_sum(sum) * scale;
}

// y = x W^T of a matrix `out in`; `in` is a multiple of LANES. Row b of x is at `stride` b. Codes have a scale for each
// output; those of weights are null.
template <class T>
static void rows(const T* w, const float* scales, const float* x, int64_t stride, float* y, int64_t out, int64_t in,
                 int64_t batch) {
  const int64_t part = out / STREAMS;
#pragma omp for schedule(static) nowait
  for (int64_t o = 0; o < part; o++) {
    const float* own = scales ? scales + o : nullptr;
    int64_t b = 0;
    for (; b + ROWS <= batch; b += ROWS)
      dots<T, ROWS>(w + o * in, own, part, x + b * stride, stride, y + b * out + o, out, in, !b);
    for (; ROWS > 2 && b + 2 <= batch; b += 2)
      dots<T, 2>(w + o * in, own, part, x + b * stride, stride, y + b * out + o, out, in, !b);
    for (; b < batch; b++) dots<T, 1>(w + o * in, own, part, x + b * stride, stride, y + b * out + o, out, in, !b);
  }
#pragma omp for schedule(static) nowait
  for (int64_t o = part * STREAMS; o < out; o++)
    for (int64_t b = 0; b < batch; b++) dot(w + o * in, scales ? scales[o] : 1.f, x + b * stride, y + b * out + o, in);
}

template <class T, int N>
static void panel(const T* w, const float* x, const T* start, float* y, int64_t in, int64_t out) {
  Vec sum[N];
  for (int j = 0; j < N; j++) sum[j] = start ? load(start + j * LANES) : Vec{};
  for (int64_t c = 0; c < in; c++) {
    Vec scale = broadcast(x[c]);
    for (int j = 0; j < N; j++) {
      __builtin_prefetch(w + (c + 8) * out + j * LANES);
      sum[j] += scale * load(w + c * out + j * LANES);
    }
  }
  for (int j = 0; j < N; j++) unaligned(y + j * LANES) = sum[j];
}

// y = start + x W of a matrix `in out`. Row b of x is at `stride` b.
template <class T>
static void columns(const T* w, const float* x, int64_t stride, const T* start, float* y, int64_t in, int64_t out,
                    int64_t batch) {
  constexpr int N = 4;
  const int64_t vectors = out / LANES, panels = (vectors + N - 1) / N;
#pragma omp for schedule(static) nowait
  for (int64_t p = 0; p < panels; p++) {
    for (int64_t b = 0; b < batch; b++) {
      const int64_t at = p * N * LANES, left = vectors - p * N;
      const T *part = w + at, *first = start ? start + at : nullptr;
      const float* row = x + b * stride;
      float* to = y + b * out + at;
      if (left >= 4) panel<T, 4>(part, row, first, to, in, out);
      else if (left == 3) panel<T, 3>(part, row, first, to, in, out);
      else if (left == 2) panel<T, 2>(part, row, first, to, in, out);
      else panel<T, 1>(part, row, first, to, in, out);
    }
  }
#pragma omp for schedule(static) nowait
  for (int64_t o = vectors * LANES; o < out; o++) {
    for (int64_t b = 0; b < batch; b++) {
      float sum = start ? scalar(start + o) : 0.f;
      for (int64_t c = 0; c < in; c++) sum += x[b * stride + c] * scalar(w + c * out + o);
      y[b * out + o] = sum;
    }
  }
}

// Rows of tensors: fp32, or bf16, its upper half. What is computed with is fp32.

#pragma once

#include "vector.h"

struct Tensor {
  void* data;  // or none
  int64_t half;  // whether it is bf16
};

typedef uint32_t Uint __attribute__((vector_size(4 * LANES)));
typedef uint16_t Bits __attribute__((vector_size(2 * LANES)));
typedef Bits BitsAnywhere __attribute__((aligned(2), may_alias));

static inline Vec widened(const void* p) {
#ifdef __AVX512F__  // compilers make four instructions of it
  Uint u;
  asm("vpmovzxwd %1, %0" : "=v"(u) : "m"(*(const BitsAnywhere*)p));
#else
  Uint u = __builtin_convertvector(*(const BitsAnywhere*)p, Uint);
#endif
  return (Vec)(u << 16);
}

// To the nearest, ties to even; NaN stays NaN.
static inline void narrowed(void* p, Vec x) {
#ifdef __AVX512BF16__
  Bits bits;
  asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(x));
#else
  Uint u = (Uint)x, number = (Uint)(x == x);
  u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  Bits bits = __builtin_convertvector((u & number) | (0x7fc0 & ~number), Bits);
#endif
  *(BitsAnywhere*)p = bits;
}

// What is left at the end of a row: its first n numbers, then zeros. Out of line: rare, and quicker to compile.
__attribute__((noinline, unused)) static Vec load_rest(const void* p, int64_t half, int n) {
  alignas(64) float whole[LANES] = {};
  memcpy(whole, p, (half ? 2 : 4) * n);
  return half ? widened(whole) : at(whole);
}

__attribute__((noinline, unused)) static void store_rest(void* p, int64_t half, Vec x, int n) {
  alignas(64) float whole[LANES];
  if (half) narrowed(whole, x);
  else at(whole) = x;
  memcpy(p, whole, (half ? 2 : 4) * n);
}

// n numbers from the i-th on. The branches are the same for a whole tensor, and cost nothing beside its memory; a
// template for every type would take twice as long to compile.
static inline Vec load(const Tensor& x, int64_t i, int n) {
  const char* p = (const char*)x.data + (x.half ? 2 : 4) * i;
  if (__builtin_expect(n < LANES, 0)) return load_rest(p, x.half, n);
  return x.half ? widened(p) : (Vec)anywhere((const float*)p);
}

static inline void store(const Tensor& x, int64_t i, Vec value, int n) {
  char* p = (char*)x.data + (x.half ? 2 : 4) * i;
  if (__builtin_expect(n < LANES, 0)) store_rest(p, x.half, value, n);
  else if (x.half) narrowed(p, value);
  else anywhere((float*)p) = value;
}

static inline Vec load(const float* p, int n) {
  return __builtin_expect(n < LANES, 0) ? load_rest(p, 0, n) : (Vec)anywhere(p);
}

static inline void add(float* p, Vec x, int n) {
  x += load(p, n);
  if (__builtin_expect(n < LANES, 0)) store_rest(p, 0, x, n);
  else anywhere(p) = x;
}

// Zero from the n-th number on.
static inline Vec keep(Vec x, int n) {
  for (int i = n; i < LANES; i++) x[i] = 0;
  return x;
}

// f(j, n) for every vector of a row: from j on, n numbers of it.
template <class F>
static inline void along(int64_t size, F f) {
  for (int64_t j = 0; j < size; j += LANES) f(j, (int)(size - j < LANES ? size - j : LANES));
}

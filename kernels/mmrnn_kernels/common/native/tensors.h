// Loads and stores of tensors in fp32 or bf16 (the upper half of a float); registers have fp32.

#pragma once

#include "vector.h"

struct Tensor {
  void* data;  // may be null
  int64_t is_bf16;
};

typedef uint32_t Uint __attribute__((vector_size(4 * LANES)));
typedef uint16_t Bits __attribute__((vector_size(2 * LANES)));
typedef Bits UnalignedBits __attribute__((aligned(2), may_alias));

static inline Vec from_bf16(const void* p) {
#ifdef __AVX512F__  // compilers emit four instructions instead
  Uint u;
  asm("vpmovzxwd %1, %0" : "=v"(u) : "m"(*(const UnalignedBits*)p));
#else
  Uint u = __builtin_convertvector(*(const UnalignedBits*)p, Uint);
#endif
  return (Vec)(u << 16);
}

// Rounds to the nearest, ties to even; NaN stays NaN.
static inline void to_bf16(void* p, Vec x) {
#ifdef __AVX512BF16__
  Bits bits;
  asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(x));
#else
  Uint u = (Uint)x, number = (Uint)(x == x);
  u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  Bits bits = __builtin_convertvector((u & number) | (0x7fc0 & ~number), Bits);
#endif
  *(UnalignedBits*)p = bits;
}

// The first n numbers, then zeros, at the end of a row. Not inlined: rare, and faster to compile.
__attribute__((noinline, unused)) static Vec load_rest(const void* p, int64_t is_bf16, int n) {
  alignas(64) float whole[LANES] = {};
  memcpy(whole, p, (is_bf16 ? 2 : 4) * n);
  return is_bf16 ? from_bf16(whole) : vec(whole);
}

__attribute__((noinline, unused)) static void store_rest(void* p, int64_t is_bf16, Vec x, int n) {
  alignas(64) float whole[LANES];
  if (is_bf16) to_bf16(whole, x);
  else vec(whole) = x;
  memcpy(p, whole, (is_bf16 ? 2 : 4) * n);
}

// n numbers from the i-th on. The branches are the same for a whole tensor, and their cost is negligible; a template
// for every type would take twice as long to compile.
static inline Vec load(const Tensor& x, int64_t i, int n) {
  const char* p = (const char*)x.data + (x.is_bf16 ? 2 : 4) * i;
  if (__builtin_expect(n < LANES, 0)) return load_rest(p, x.is_bf16, n);
  return x.is_bf16 ? from_bf16(p) : (Vec)unaligned((const float*)p);
}

static inline void store(const Tensor& x, int64_t i, Vec value, int n) {
  char* p = (char*)x.data + (x.is_bf16 ? 2 : 4) * i;
  if (__builtin_expect(n < LANES, 0)) store_rest(p, x.is_bf16, value, n);
  else if (x.is_bf16) to_bf16(p, value);
  else unaligned((float*)p) = value;
}

static inline Vec load(const float* p, int n) {
  return __builtin_expect(n < LANES, 0) ? load_rest(p, 0, n) : (Vec)unaligned(p);
}

static inline void add(float* p, Vec x, int n) {
  x += load(p, n);
  if (__builtin_expect(n < LANES, 0)) store_rest(p, 0, x, n);
  else unaligned(p) = x;
}

// Sets the numbers from the n-th on to zero.
static inline Vec mask_tail(Vec x, int n) {
  for (int i = n; i < LANES; i++) x[i] = 0;
  return x;
}

// Calls f(j, n) for every vector of a row: n numbers from j on.
template <class F>
static inline void for_each_vector(int64_t size, F f) {
  for (int64_t j = 0; j < size; j += LANES) f(j, (int)(size - j < LANES ? size - j : LANES));
}

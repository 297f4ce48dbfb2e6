// Vectors of fp32 as wide as the processor has them.

#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 16;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 8;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 8;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef Vec Anywhere __attribute__((aligned(4)));
typedef int32_t Int __attribute__((vector_size(4 * LANES)));

static inline Vec& at(float* p) { return *reinterpret_cast<Vec*>(p); }
static inline const Vec& at(const float* p) { return *reinterpret_cast<const Vec*>(p); }
static inline Anywhere& anywhere(float* p) { return *reinterpret_cast<Anywhere*>(p); }
static inline const Anywhere& anywhere(const float* p) { return *reinterpret_cast<const Anywhere*>(p); }
static inline Vec all(float x) { return x - Vec{}; }
static inline int whole(int64_t n) { return (int)((n + LANES - 1) / LANES * LANES); }

// e^x = scale (1 + excess) for x <= 10, by Cody and Waite; NaN stays NaN.
struct Power {
  Vec scale, excess;
  explicit Power(Vec x) {
    const Vec round = all(12582912.f);
    Vec n = (x * all(1.44269504088896341f) + round) - round;
    Vec f = (x - n * all(0.693359375f)) + n * all(2.12194440e-4f);
    Vec p = all(1.9875691500e-4f);
    p = p * f + all(1.3981999507e-3f);
    p = p * f + all(8.3334519073e-3f);
    p = p * f + all(4.1665795894e-2f);
    p = p * f + all(1.6666665459e-1f);
    p = p * f + all(5.0000001201e-1f);
    excess = p * (f * f) + f;
    scale = (Vec)((__builtin_convertvector(n, Int) + 127) << 23);
  }
};

static inline Vec choose(Int first, Vec a, Vec b) { return (Vec)((first & (Int)a) | (~first & (Int)b)); }

// Within 1 ulp, and 0 where it would be denormal.
static inline Vec exponential(Vec x) {
  Power p(x);
  return choose(x < all(-87.f), Vec{}, p.excess * p.scale + p.scale);
}

// Denormal numbers are slow and mean nothing here.
struct Flush {
#if defined(__SSE__)
  unsigned before = __builtin_ia32_stmxcsr();
  Flush() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~Flush() { __builtin_ia32_ldmxcsr(before); }
#endif
};

static inline float total(Vec x) {
  typedef float Four __attribute__((vector_size(16)));
  Four parts[LANES / 4], sum{};
  memcpy(parts, &x, sizeof(x));
  for (Four part : parts) sum += part;
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

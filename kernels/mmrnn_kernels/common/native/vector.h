// fp32 vectors of the processor's width.

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
typedef Vec Unaligned __attribute__((aligned(4)));
typedef int32_t Int __attribute__((vector_size(4 * LANES)));

static inline Vec& vec(float* p) { return *reinterpret_cast<Vec*>(p); }
static inline const Vec& vec(const float* p) { return *reinterpret_cast<const Vec*>(p); }
static inline Unaligned& unaligned(float* p) { return *reinterpret_cast<Unaligned*>(p); }
static inline const Unaligned& unaligned(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
static inline Vec broadcast(float x) { return x - Vec{}; }
static inline int round_up_to_lanes(int64_t n) { return (int)((n + LANES - 1) / LANES * LANES); }

// e^x = scale (1 + excess) for x <= 10, by Cody and Waite; NaN stays NaN.
struct ScaledExp {
  Vec scale, excess;
  explicit ScaledExp(Vec x) {
    const Vec round = broadcast(12582912.f);
    Vec n = (x * broadcast(1.44269504088896341f) + round) - round;
    Vec f = (x - n * broadcast(0.693359375f)) + n * broadcast(2.12194440e-4f);
    Vec p = broadcast(1.9875691500e-4f);
    p = p * f + broadcast(1.3981999507e-3f);
    p = p * f + broadcast(8.3334519073e-3f);
    p = p * f + broadcast(4.1665795894e-2f);
    p = p * f + broadcast(1.6666665459e-1f);
    p = p * f + broadcast(5.0000001201e-1f);
    excess = p * (f * f) + f;
    scale = (Vec)((__builtin_convertvector(n, Int) + 127) << 23);
  }
};

static inline Vec select(Int first, Vec a, Vec b) { return (Vec)((first & (Int)a) | (~first & (Int)b)); }

// e^x within 1 ulp, and 0 where it would be denormal.
static inline Vec exp_flushed(Vec x) {
  ScaledExp p(x);
  return select(x < broadcast(-87.f), Vec{}, p.excess * p.scale + p.scale);
}

// Treats denormal numbers as zero while it lives: they are slow and irrelevant here.
struct FlushDenormals {
#if defined(__SSE__)
  unsigned before = __builtin_ia32_stmxcsr();
  FlushDenormals() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(before); }
#endif
};

static inline float horizontal_sum(Vec x) {
  typedef float Four __attribute__((vector_size(16)));
  Four parts[LANES / 4], sum{};
  memcpy(parts, &x, sizeof(x));
  for (Four part : parts) sum += part;
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Threads for the (row, head) pairs of a call.

#pragma once

#include <stdlib.h>

#include "memory.h"

static float* take(float*& scratch, int64_t size) {
  float* taken = scratch;
  scratch += size;
  return taken;
}

// Threads, so that each has work for at least about 10 microseconds.
static int thread_count(const Sizes& z, int threads) {
  int64_t pairs = z.batch * z.heads, key = round_up_to_lanes(z.key), value = round_up_to_lanes(z.value);
  int64_t useful = 1 + pairs * z.length * key * value / (1 << 18);
  if (useful > pairs) useful = pairs;
  return (int)(threads < useful ? threads : useful);
}

// Calls `pair` for every (row, head). One thread computes a whole pair: the number of threads changes no result.
template <class Pair>
static int for_each_head(const Sizes& z, int threads, int64_t scratch, Pair pair) {
  int failed = 0;
#pragma omp parallel num_threads(thread_count(z, threads)) reduction(| : failed)
  {
    FlushDenormals flush;
    void* memory = malloc(sizeof(float) * scratch + 64);
    float* aligned = (float*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < z.batch * z.heads; i++) {
      if (memory)
        pair(i / z.heads, i % z.heads, aligned);
      else
        failed = 1;
    }
    free(memory);
  }
  return failed;
}

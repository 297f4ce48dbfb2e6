// Every (row, head) pair by itself, several of them at a time.

#pragma once

#include <stdlib.h>

#include "memory.h"

static float* take(float*& room, int64_t size) {
  float* taken = room;
  room += size;
  return taken;
}

// So many threads that each has work for about 10 microseconds.
static int crew(const Sizes& z, int threads) {
  int64_t pairs = z.batch * z.heads, useful = 1 + pairs * z.length * whole(z.key) * whole(z.value) / (1 << 18);
  if (useful > pairs) useful = pairs;
  return (int)(threads < useful ? threads : useful);
}

// Every pair by one thread from its beginning to its end: the number of threads changes no result.
template <class Pair>
static int every_pair(const Sizes& z, int threads, int64_t room, Pair pair) {
  int failed = 0;
#pragma omp parallel num_threads(crew(z, threads)) reduction(| : failed)
  {
    Flush flush;
    void* memory = malloc(sizeof(float) * room + 64);
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

// Who does what: blocks of rows, whose number depends on the sizes alone, so that sums do not depend on the threads.

#pragma once

#include <stdlib.h>

#include "../../common/native/rows.h"

constexpr int64_t BLOCK = 128;  // rows

static inline int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

// f(first, last, block) for blocks of rows with `work` numbers each. A thread more for every 30 000 numbers.
template <class F>
static void every_block(int64_t rows, int64_t work, int threads, F f) {
  int64_t useful = 1 + rows * work / 30000, blocks = blocks_of(rows);
  if (threads > useful) threads = (int)useful;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < blocks; i++) {
    Flush flush;
    int64_t first = i * BLOCK;
    f(first, first + BLOCK < rows ? first + BLOCK : rows, i);
  }
}

// One row of sums a block, in fp32; added up in fp64.
struct Sums {
  int64_t blocks, size;
  float* all;
  Sums(int64_t rows, int64_t size)
      : blocks(blocks_of(rows)), size(size), all((float*)calloc(blocks * size, sizeof(float))) {}
  Sums(const Sums&) = delete;
  ~Sums() { free(all); }
  float* operator[](int64_t block) const { return all + block * size; }
  void into(float* out) const {
    for (int64_t j = 0; j < size; j++) {
      double sum = 0;
      for (int64_t i = 0; i < blocks; i++) sum += all[i * size + j];
      out[j] = (float)sum;
    }
  }
};

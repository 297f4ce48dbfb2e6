// Blocks of rows for the threads. Their number depends on the sizes alone, so that sums do not depend on the threads.

#pragma once

#include <stdlib.h>

#include "../../common/native/tensors.h"

constexpr int64_t BLOCK = 128;  // rows

static inline int64_t count_blocks(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

// Calls f(first, last, block) for blocks of rows with `work` numbers each, with a thread for every 30 000 numbers.
template <class F>
static void for_each_block(int64_t rows, int64_t work, int threads, F f) {
  int64_t useful = 1 + rows * work / 30000, blocks = count_blocks(rows);
  if (threads > useful) threads = (int)useful;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < blocks; i++) {
    FlushDenormals flush;
    int64_t first = i * BLOCK;
    f(first, first + BLOCK < rows ? first + BLOCK : rows, i);
  }
}

// One row of sums a block in fp32, added in fp64.
struct Sums {
  int64_t blocks, size;
  float* sums;
  Sums(int64_t rows, int64_t size)
      : blocks(count_blocks(rows)), size(size), sums((float*)calloc(blocks * size, sizeof(float))) {}
  Sums(const Sums&) = delete;
  ~Sums() { free(sums); }
  float* operator[](int64_t block) const { return sums + block * size; }
  void into(float* out) const {
    for (int64_t j = 0; j < size; j++) {
      double sum = 0;
      for (int64_t i = 0; i < blocks; i++) sum += sums[i * size + j];
      out[j] = (float)sum;
    }
  }
};

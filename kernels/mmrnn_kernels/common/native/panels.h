// Panels of the state in registers, for the loops over positions: the lanes of a vector lie along one axis of the
// state, and a few rows of the other axis stay in registers for a whole block of positions.

#pragma once

#include "vector.h"

constexpr int PANEL = 4;   // vectors next to each other in registers
constexpr int BLOCK = 16;  // positions whose inputs and states stay in the L1 cache

// Rows of n vectors that the registers for the state hold.
constexpr int rows_in_registers(int n) {
  int rows = 1;
  while (rows * 2 * n <= REGISTERS && rows * 2 <= LANES) rows *= 2;
  return rows;
}

// Runs f<N> over panels of at most PANEL vectors.
#define BY_PANEL(width, CALL)                                          \
  for (int lane = 0; lane < (width);) {                                \
    int vectors = ((width) - lane) / LANES;                            \
    switch (vectors < PANEL ? vectors : PANEL) {                       \
      case 1: { constexpr int N = 1; CALL; lane += LANES; break; }     \
      case 2: { constexpr int N = 2; CALL; lane += 2 * LANES; break; } \
      case 3: { constexpr int N = 3; CALL; lane += 3 * LANES; break; } \
      default: { constexpr int N = 4; CALL; lane += 4 * LANES; }       \
    }                                                                  \
  }

#define UNROLL _Pragma("GCC unroll 16")

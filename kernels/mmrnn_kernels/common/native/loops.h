// The loops over positions. The lanes of a vector lie along one axis of the state; the other is walked a few rows at a
// time, and those rows stay in registers for a whole block of positions.

#pragma once

#include "vector.h"

constexpr int PANEL = 4;   // vectors beside each other in registers
constexpr int BLOCK = 16;  // positions whose inputs and states stay in the nearest cache

// How many rows of N vectors the registers for the state hold.
constexpr int rows_of(int n) {
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

// State `key value` with its lanes along the values; forwards or backwards in time:
//   out_t += read_t S,  S <- decay_t S + write_t values_t
template <int N, bool BACK>
static void sweep(float* state, int key, int value, const float* read, const float* write, const float* decay,
                  const float* values, float* out, int n) {
  constexpr int ROWS = rows_of(N);
  for (int a = 0; a < key; a += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = at(state + (a + i) * value + j * LANES);
    for (int step = 0; step < n; step++) {
      int t = BACK ? n - 1 - step : step;
      Vec o[N], x[N];
      UNROLL for (int j = 0; j < N; j++) {
        o[j] = at(out + t * value + j * LANES);
        x[j] = at(values + t * value + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec p = all(read[t * key + a + i]), q = all(write[t * key + a + i]), d = all(decay[t * key + a + i]);
        UNROLL for (int j = 0; j < N; j++) {
          o[j] += p * s[i][j];
          s[i][j] = s[i][j] * d + q * x[j];
        }
      }
      UNROLL for (int j = 0; j < N; j++) at(out + t * value + j * LANES) = o[j];
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      at(state + (a + i) * value + j * LANES) = s[i][j];
  }
}

// State `value key` with its lanes along the keys: only S <- decay_t S + v_t k_t, from one checkpoint to the next.
template <int N>
static void advance(const float* from, float* to, int key, int value, const float* k, const float* v,
                    const float* decay, int n) {
  constexpr int ROWS = rows_of(N);
  for (int a = 0; a < value; a += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = at(from + (a + i) * key + j * LANES);
    for (int t = 0; t < n; t++) {
      Vec d[N], x[N];
      UNROLL for (int j = 0; j < N; j++) {
        d[j] = at(decay + t * key + j * LANES);
        x[j] = at(k + t * key + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec q = all(v[t * value + a + i]);
        UNROLL for (int j = 0; j < N; j++) s[i][j] = s[i][j] * d[j] + q * x[j];
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      at(to + (a + i) * key + j * LANES) = s[i][j];
  }
}

// State S and its gradient G, `value key`, where they meet. Forwards: dr_t += S_t dout_t, every S_t kept; then
// backwards: dk_t += G v_t, met_t += rowsum(G S_t), G <- decay_t G + dout_t r_t.
template <int N>
static void meet(const float* start, float* grad, float* kept, int key, int value, const float* r, const float* k,
                 const float* v, const float* decay, const float* dout, float* dr, float* dk, float* met, int n) {
  constexpr int ROWS = rows_of(N);
  for (int a = 0; a < value; a += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = at(start + (a + i) * key + j * LANES);
    for (int t = 0; t < n; t++) {
      float* keep = kept + t * ROWS * N * LANES;
      Vec o[N], x[N], d[N];
      UNROLL for (int j = 0; j < N; j++) {
        o[j] = at(dr + t * key + j * LANES);
        x[j] = at(k + t * key + j * LANES);
        d[j] = at(decay + t * key + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec p = all(dout[t * value + a + i]), q = all(v[t * value + a + i]);
        UNROLL for (int j = 0; j < N; j++) {
          at(keep + (i * N + j) * LANES) = s[i][j];
          o[j] += p * s[i][j];
          s[i][j] = s[i][j] * d[j] + q * x[j];
        }
      }
      UNROLL for (int j = 0; j < N; j++) at(dr + t * key + j * LANES) = o[j];
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = at(grad + (a + i) * key + j * LANES);
    for (int t = n - 1; t >= 0; t--) {
      const float* keep = kept + t * ROWS * N * LANES;
      Vec o[N], m[N];
      UNROLL for (int j = 0; j < N; j++) {
        o[j] = at(dk + t * key + j * LANES);
        m[j] = at(met + t * key + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec p = all(v[t * value + a + i]), q = all(dout[t * value + a + i]);
        UNROLL for (int j = 0; j < N; j++) {
          o[j] += p * s[i][j];
          m[j] += at(keep + (i * N + j) * LANES) * s[i][j];
          s[i][j] = s[i][j] * at(decay + t * key + j * LANES) + q * at(r + t * key + j * LANES);
        }
      }
      UNROLL for (int j = 0; j < N; j++) {
        at(dk + t * key + j * LANES) = o[j];
        at(met + t * key + j * LANES) = m[j];
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      at(grad + (a + i) * key + j * LANES) = s[i][j];
  }
}

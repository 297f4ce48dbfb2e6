// The loops of WKV-5 and WKV-6 over a block of positions, with panels of the state in registers.

#pragma once

#include "../../common/native/panels.h"

// State `key value` with its lanes along the values; forwards or backwards in time:
//   out_t += read_t S,  S <- decay_t S + write_t values_t
template <int N, bool BACK>
static void sweep(float* state, int key, int value, const float* read, const float* write, const float* decay,
                  const float* values, float* out, int n) {
  constexpr int ROWS = rows_in_registers(N);
  for (int a = 0; a < key; a += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = vec(state + (a + i) * value + j * LANES);
    for (int step = 0; step < n; step++) {
      int t = BACK ? n - 1 - step : step;
      Vec o[N], x[N];
      UNROLL for (int j = 0; j < N; j++) {
        o[j] = vec(out + t * value + j * LANES);
        x[j] = vec(values + t * value + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        int64_t entry = t * key + a + i;
        Vec p = broadcast(read[entry]), q = broadcast(write[entry]), d = broadcast(decay[entry]);
        UNROLL for (int j = 0; j < N; j++) {
          o[j] += p * s[i][j];
          s[i][j] = s[i][j] * d + q * x[j];
        }
      }
      UNROLL for (int j = 0; j < N; j++) vec(out + t * value + j * LANES) = o[j];
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      vec(state + (a + i) * value + j * LANES) = s[i][j];
  }
}

// State `value key` with its lanes along the keys: S <- decay_t S + v_t k_t, from one checkpoint to the next.
template <int N>
static void advance(const float* from, float* to, int key, int value, const float* k, const float* v,
                    const float* decay, int n) {
  constexpr int ROWS = rows_in_registers(N);
  for (int a = 0; a < value; a += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = vec(from + (a + i) * key + j * LANES);
    for (int t = 0; t < n; t++) {
      Vec d[N], x[N];
      UNROLL for (int j = 0; j < N; j++) {
        d[j] = vec(decay + t * key + j * LANES);
        x[j] = vec(k + t * key + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec q = broadcast(v[t * value + a + i]);
        UNROLL for (int j = 0; j < N; j++) s[i][j] = s[i][j] * d[j] + q * x[j];
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      vec(to + (a + i) * key + j * LANES) = s[i][j];
  }
}

// Gradients from the state S and its gradient G, `value key`. Forwards: dr_t += S_t dout_t, every S_t saved; then
// backwards: dk_t += G v_t, dlog_t += rowsum(G S_t), G <- decay_t G + dout_t r_t.
template <int N>
static void accumulate_gradients(const float* start, float* grad, float* states, int key, int value, const float* r,
                                 const float* k, const float* v, const float* decay, const float* dout, float* dr,
                                 float* dk, float* dlog, int n) {
  constexpr int ROWS = rows_in_registers(N);
  for (int a = 0; a < value; a += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = vec(start + (a + i) * key + j * LANES);
    for (int t = 0; t < n; t++) {
      float* saved = states + t * ROWS * N * LANES;
      Vec o[N], x[N], d[N];
      UNROLL for (int j = 0; j < N; j++) {
        o[j] = vec(dr + t * key + j * LANES);
        x[j] = vec(k + t * key + j * LANES);
        d[j] = vec(decay + t * key + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec p = broadcast(dout[t * value + a + i]), q = broadcast(v[t * value + a + i]);
        UNROLL for (int j = 0; j < N; j++) {
          vec(saved + (i * N + j) * LANES) = s[i][j];
          o[j] += p * s[i][j];
          s[i][j] = s[i][j] * d[j] + q * x[j];
        }
      }
      UNROLL for (int j = 0; j < N; j++) vec(dr + t * key + j * LANES) = o[j];
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = vec(grad + (a + i) * key + j * LANES);
    for (int t = n - 1; t >= 0; t--) {
      const float* saved = states + t * ROWS * N * LANES;
      Vec o[N], m[N];
      UNROLL for (int j = 0; j < N; j++) {
        o[j] = vec(dk + t * key + j * LANES);
        m[j] = vec(dlog + t * key + j * LANES);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        Vec p = broadcast(v[t * value + a + i]), q = broadcast(dout[t * value + a + i]);
        UNROLL for (int j = 0; j < N; j++) {
          o[j] += p * s[i][j];
          m[j] += vec(saved + (i * N + j) * LANES) * s[i][j];
          s[i][j] = s[i][j] * vec(decay + t * key + j * LANES) + q * vec(r + t * key + j * LANES);
        }
      }
      UNROLL for (int j = 0; j < N; j++) {
        vec(dk + t * key + j * LANES) = o[j];
        vec(dlog + t * key + j * LANES) = m[j];
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      vec(grad + (a + i) * key + j * LANES) = s[i][j];
  }
}

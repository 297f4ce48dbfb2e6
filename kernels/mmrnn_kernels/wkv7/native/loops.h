// The loops over positions. In the first two the lanes of a vector lie along the values: columns of the state are
// independent, but u is a sum over all rows, so the state passes through the L1 cache once a position. In
// `accumulate_gradients` they lie along the keys, and rows stay in registers for a whole block of positions.

#pragma once

#include "../../common/native/panels.h"

// Forwards: u_t = a_t S, S <- decay_t S + b_t u_t + k_t v_t, out_t = r_t S. `u` and `out` must be zero.
template <int N, bool READ>
static void forwards(float* state, int key, int value, const float* r, const float* decay, const float* k,
                     const float* v, const float* a, const float* b, float* u, float* out, int n) {
  for (int i = 0; i < key; i++)
    UNROLL for (int j = 0; j < N; j++) vec(u + j * LANES) += broadcast(a[i]) * vec(state + i * value + j * LANES);
  for (int t = 0; t < n; t++) {
    bool more = t + 1 < n;
    const float* ahead = a + (more ? t + 1 : t) * key;
    Vec m[N], x[N], next[N], o[N];
    UNROLL for (int j = 0; j < N; j++) {
      m[j] = vec(u + t * value + j * LANES);
      x[j] = vec(v + t * value + j * LANES);
      next[j] = o[j] = Vec{};
    }
    for (int i = 0; i < key; i++) {
      Vec d = broadcast(decay[t * key + i]), p = broadcast(b[t * key + i]), q = broadcast(k[t * key + i]);
      Vec l = broadcast(ahead[i]);
      UNROLL for (int j = 0; j < N; j++) {
        Vec& s = vec(state + i * value + j * LANES);
        Vec now = s * d + p * m[j] + q * x[j];
        s = now;
        next[j] += l * now;
        if (READ) o[j] += broadcast(r[t * key + i]) * now;
      }
    }
    UNROLL for (int j = 0; j < N; j++) {
      if (more) vec(u + (t + 1) * value + j * LANES) = next[j];
      if (READ) vec(out + t * value + j * LANES) = o[j];
    }
  }
}

// Backwards, with G the gradient of the state:
// G <- G + r_t dout_t, dv_t = k_t G, du_t = b_t G, G <- decay_t G + a_t du_t.
template <int N>
static void backwards(float* grad, int key, int value, const float* r, const float* decay, const float* k,
                      const float* a, const float* b, const float* dout, float* du, float* dv, int n) {
  for (int t = n - 1; t >= -1; t--) {
    bool later = t + 1 < n, here = t >= 0;
    const float *decays = decay + (t + 1) * key, *feed = a + (t + 1) * key;
    Vec m[N], x[N], read[N], o[N];
    UNROLL for (int j = 0; j < N; j++) {
      m[j] = later ? vec(du + (t + 1) * value + j * LANES) : Vec{};
      x[j] = here ? vec(dout + t * value + j * LANES) : Vec{};
      read[j] = o[j] = Vec{};
    }
    for (int i = 0; i < key; i++) {
      Vec d = broadcast(later ? decays[i] : 1.f), p = broadcast(later ? feed[i] : 0.f);
      Vec q = broadcast(here ? r[t * key + i] : 0.f);
      UNROLL for (int j = 0; j < N; j++) {
        Vec& g = vec(grad + i * value + j * LANES);
        Vec now = g * d + p * m[j] + q * x[j];
        g = now;
        if (here) {
          read[j] += broadcast(b[t * key + i]) * now;
          o[j] += broadcast(k[t * key + i]) * now;
        }
      }
    }
    UNROLL for (int j = 0; j < N; j++) {
      if (here) vec(du + t * value + j * LANES) = read[j];
      if (here) vec(dv + t * value + j * LANES) = o[j];
    }
  }
}

struct Block {
  const float *r, *decay, *k, *v, *a, *b, *dout, *u, *du;  // inputs of its positions
  float *dr, *dk, *da, *db, *dd;                               // gradients added to, dd of the decay
};

// Gradients from the state S and its gradient G, `value key`. Forwards: da_t += S du_t, S <- ..., dr_t += S dout_t,
// with the S before every position saved; then backwards: dk_t += G v_t, db_t += G u_t, dd_t += rowsum(G S_t), G <- ...
template <int N>
static void accumulate_gradients(const float* start, float* grad, float* states, int key, int value, const Block& f,
                                 int lane, int n) {
  constexpr int ROWS = rows_in_registers(N);
  for (int row = 0; row < value; row += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = vec(start + (row + i) * key + lane + j * LANES);
    for (int t = 0; t < n; t++) {
      float* saved = states + t * ROWS * N * LANES;
      int64_t place = t * key + lane;
      UNROLL for (int j = 0; j < N; j++) {
        Vec da = vec(f.da + place + j * LANES), dr = vec(f.dr + place + j * LANES);
        Vec d = vec(f.decay + place + j * LANES), p = vec(f.b + place + j * LANES), q = vec(f.k + place + j * LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
          int64_t entry = t * value + row + i;
          vec(saved + (i * N + j) * LANES) = s[i][j];
          da += broadcast(f.du[entry]) * s[i][j];
          s[i][j] = s[i][j] * d + p * broadcast(f.u[entry]) + q * broadcast(f.v[entry]);
          dr += broadcast(f.dout[entry]) * s[i][j];
        }
        vec(f.da + place + j * LANES) = da;
        vec(f.dr + place + j * LANES) = dr;
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = vec(grad + (row + i) * key + lane + j * LANES);
    for (int t = n - 1; t >= 0; t--) {
      const float* saved = states + t * ROWS * N * LANES;
      int64_t place = t * key + lane;
      UNROLL for (int j = 0; j < N; j++) {
        Vec dk = vec(f.dk + place + j * LANES), db = vec(f.db + place + j * LANES), dd = vec(f.dd + place + j * LANES);
        Vec d = vec(f.decay + place + j * LANES), p = vec(f.a + place + j * LANES), q = vec(f.r + place + j * LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
          int64_t entry = t * value + row + i;
          s[i][j] += q * broadcast(f.dout[entry]);
          dk += broadcast(f.v[entry]) * s[i][j];
          db += broadcast(f.u[entry]) * s[i][j];
          dd += vec(saved + (i * N + j) * LANES) * s[i][j];
          s[i][j] = s[i][j] * d + p * broadcast(f.du[entry]);
        }
        vec(f.dk + place + j * LANES) = dk;
        vec(f.db + place + j * LANES) = db;
        vec(f.dd + place + j * LANES) = dd;
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      vec(grad + (row + i) * key + lane + j * LANES) = s[i][j];
  }
}

// The loops over positions. In the first two the lanes of a vector lie along the values: columns of the state know
// nothing of each other, but what a position meets is a sum over all rows, so the state passes through the nearest
// cache once a position. In `meet` they lie along the keys, and rows stay in registers for a whole block of positions.

#pragma once

#include "../../common/native/loops.h"

// Forwards: met_t = a_t S, S <- decay_t S + b_t met_t + k_t v_t, out_t = r_t S. `met` and `out` come in as zeros.
template <int N, bool READ>
static void forwards(float* state, int key, int value, const float* r, const float* decay, const float* k,
                     const float* v, const float* a, const float* b, float* met, float* out, int n) {
  for (int i = 0; i < key; i++)
    UNROLL for (int j = 0; j < N; j++) at(met + j * LANES) += all(a[i]) * at(state + i * value + j * LANES);
  for (int t = 0; t < n; t++) {
    bool more = t + 1 < n;
    const float* ahead = a + (more ? t + 1 : t) * key;
    Vec m[N], x[N], next[N], o[N];
    UNROLL for (int j = 0; j < N; j++) {
      m[j] = at(met + t * value + j * LANES);
      x[j] = at(v + t * value + j * LANES);
      next[j] = o[j] = Vec{};
    }
    for (int i = 0; i < key; i++) {
      Vec d = all(decay[t * key + i]), p = all(b[t * key + i]), q = all(k[t * key + i]), l = all(ahead[i]);
      UNROLL for (int j = 0; j < N; j++) {
        Vec& s = at(state + i * value + j * LANES);
        Vec now = s * d + p * m[j] + q * x[j];
        s = now;
        next[j] += l * now;
        if (READ) o[j] += all(r[t * key + i]) * now;
      }
    }
    UNROLL for (int j = 0; j < N; j++) {
      if (more) at(met + (t + 1) * value + j * LANES) = next[j];
      if (READ) at(out + t * value + j * LANES) = o[j];
    }
  }
}

// Backwards, with G the gradient of the state: G <- G + r_t dout_t, dv_t = k_t G, dmet_t = b_t G, G <- decay_t G +
// a_t dmet_t.
template <int N>
static void backwards(float* grad, int key, int value, const float* r, const float* decay, const float* k,
                      const float* a, const float* b, const float* dout, float* dmet, float* dv, int n) {
  for (int t = n - 1; t >= -1; t--) {
    bool later = t + 1 < n, here = t >= 0;
    const float *decays = decay + (t + 1) * key, *feed = a + (t + 1) * key;
    Vec m[N], x[N], met[N], o[N];
    UNROLL for (int j = 0; j < N; j++) {
      m[j] = later ? at(dmet + (t + 1) * value + j * LANES) : Vec{};
      x[j] = here ? at(dout + t * value + j * LANES) : Vec{};
      met[j] = o[j] = Vec{};
    }
    for (int i = 0; i < key; i++) {
      Vec d = all(later ? decays[i] : 1.f), p = all(later ? feed[i] : 0.f);
      Vec q = all(here ? r[t * key + i] : 0.f);
      UNROLL for (int j = 0; j < N; j++) {
        Vec& g = at(grad + i * value + j * LANES);
        Vec now = g * d + p * m[j] + q * x[j];
        g = now;
        if (here) {
          met[j] += all(b[t * key + i]) * now;
          o[j] += all(k[t * key + i]) * now;
        }
      }
    }
    UNROLL for (int j = 0; j < N; j++) {
      if (here) at(dmet + t * value + j * LANES) = met[j];
      if (here) at(dv + t * value + j * LANES) = o[j];
    }
  }
}

struct Block {
  const float *r, *decay, *k, *v, *a, *b, *dout, *met, *dmet;  // what is known of its positions
  float *dr, *dk, *da, *db, *dd;                               // what is added to, dd for the decay
};

// State S and its gradient G, `value key`, where they meet. Forwards: da_t += S dmet_t, S <- ..., dr_t += S dout_t, the
// S before every position kept; then backwards: dk_t += G v_t, db_t += G met_t, dd_t += rowsum(G S_t), G <- ...
template <int N>
static void meet(const float* start, float* grad, float* kept, int key, int value, const Block& f, int lane, int n) {
  constexpr int ROWS = rows_of(N);
  for (int row = 0; row < value; row += ROWS) {
    Vec s[ROWS][N];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = at(start + (row + i) * key + lane + j * LANES);
    for (int t = 0; t < n; t++) {
      float* keep = kept + t * ROWS * N * LANES;
      int64_t place = t * key + lane;
      UNROLL for (int j = 0; j < N; j++) {
        Vec da = at(f.da + place + j * LANES), dr = at(f.dr + place + j * LANES);
        Vec d = at(f.decay + place + j * LANES), p = at(f.b + place + j * LANES), q = at(f.k + place + j * LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
          int64_t entry = t * value + row + i;
          at(keep + (i * N + j) * LANES) = s[i][j];
          da += all(f.dmet[entry]) * s[i][j];
          s[i][j] = s[i][j] * d + p * all(f.met[entry]) + q * all(f.v[entry]);
          dr += all(f.dout[entry]) * s[i][j];
        }
        at(f.da + place + j * LANES) = da;
        at(f.dr + place + j * LANES) = dr;
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      s[i][j] = at(grad + (row + i) * key + lane + j * LANES);
    for (int t = n - 1; t >= 0; t--) {
      const float* keep = kept + t * ROWS * N * LANES;
      int64_t place = t * key + lane;
      UNROLL for (int j = 0; j < N; j++) {
        Vec dk = at(f.dk + place + j * LANES), db = at(f.db + place + j * LANES), dd = at(f.dd + place + j * LANES);
        Vec d = at(f.decay + place + j * LANES), p = at(f.a + place + j * LANES), q = at(f.r + place + j * LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
          int64_t entry = t * value + row + i;
          s[i][j] += q * all(f.dout[entry]);
          dk += all(f.v[entry]) * s[i][j];
          db += all(f.met[entry]) * s[i][j];
          dd += at(keep + (i * N + j) * LANES) * s[i][j];
          s[i][j] = s[i][j] * d + p * all(f.dmet[entry]);
        }
        at(f.dk + place + j * LANES) = dk;
        at(f.db + place + j * LANES) = db;
        at(f.dd + place + j * LANES) = dd;
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++)
      at(grad + (row + i) * key + lane + j * LANES) = s[i][j];
  }
}

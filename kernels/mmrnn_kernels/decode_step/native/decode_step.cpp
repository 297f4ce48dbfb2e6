// One position of an RWKV-5 or RWKV-6 language model for a few rows: all layers in one call, the activations in fp32.
// The equations are those of arXiv 2404.05892, sections 4.1 and 4.2, in the order of mmrnn's modules.

#include <stdlib.h>

#include "matvec.h"

// The weights of a block, fp32 or bf16, and what it remembers before and after. Matrices that belong to the low-rank
// paths are `in out`, the others `out in`. RWKV-5 has no low-rank paths: these are null.
struct Layer {
  const void *norm_in_weight, *norm_in_bias;
  const void *norm_time_weight, *norm_time_bias, *norm_channel_weight, *norm_channel_bias;
  const void *lerp_k, *lerp_v, *lerp_r, *lerp_g, *decay, *bonus;
  const void *receptance, *key, *value, *gate, *output, *norm_weight, *norm_bias;
  const void *channel_lerp_k, *channel_lerp_r, *channel_key, *channel_receptance, *channel_value;
  const void *lerp_x, *lerp_w, *lerp_down, *lerp_up, *decay_down, *decay_up;
  const void* time_shift;
  const float* wkv;
  const void* channel_shift;
  void* new_time_shift;
  float* new_wkv;
  void* new_channel_shift;
};

struct Job {
  int64_t batch, depth, width, heads, size, ffn, mix_rank, decay_rank;
  int64_t current;  // the learned weights are those of this token (RWKV-5), not of the one before
  double eps, head_eps;
  const Layer* layers;
  const void *embeds, *norm_weight, *norm_bias;
  void* hidden;
};

static inline Vec power(Vec x) {
  Vec high = all(80.f);
  Power p(choose(x > high, high, x));
  return choose(x < all(-87.f), Vec{}, p.excess * p.scale + p.scale);
}

static inline Vec sigmoid(Vec x) { return all(1.f) / (all(1.f) + power(-x)); }
static inline Vec tangent(Vec x) { return all(1.f) - all(2.f) / (all(1.f) + power(x + x)); }

// Of `size` numbers, a multiple of LANES.
template <class T>
static void norm(const float* x, const T* weight, const T* bias, float* y, int64_t size, float eps) {
  Vec sum{}, squares{};
  for (int64_t i = 0; i < size; i += LANES) sum += anywhere(x + i);
  Vec mean = all(total(sum) / size);
  for (int64_t i = 0; i < size; i += LANES) {
    Vec off = anywhere(x + i) - mean;
    squares += off * off;
  }
  Vec scale = all(1.f / __builtin_sqrtf(total(squares) / size + eps));
  for (int64_t i = 0; i < size; i += LANES)
    anywhere(y + i) = (anywhere(x + i) - mean) * scale * load(weight + i) + load(bias + i);
}

// Scratch of all rows, one array after the other.
struct Room {
  float *x, *y, *delta, *mixed, *low, *rank, *r, *k, *v, *gate, *decay, *out, *ffn, *left, *right, *memory;

  explicit Room(const Job& j) {
    const int64_t inner = j.heads * j.size, b = j.batch;
    int64_t sizes[] = {j.width, j.width, j.width, 5 * j.width, 5 * j.mix_rank, j.decay_rank, inner, inner,
                       inner,   inner,   inner,   inner,       j.ffn,          j.width,      j.width};
    float** arrays[] = {&x, &y, &delta, &mixed, &low, &rank, &r, &k, &v, &gate, &decay, &out, &ffn, &left, &right};
    int64_t room = 16;
    for (int64_t size : sizes) room += (size * b + 15) / 16 * 16;
    memory = (float*)malloc(sizeof(float) * room);
    float* next = (float*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    for (int i = 0; i < 15; i++) {
      *arrays[i] = next;
      next += (sizes[i] * b + 15) / 16 * 16;
    }
  }
  ~Room() { free(memory); }
};

// The mixture of this token (y) and the one before (y + delta).
template <class T>
static inline Vec blend(Vec y, Vec delta, const T* weight, bool current) {
  Vec w = load(weight);
  return y + delta * (current ? all(1.f) - w : w);
}

// Norms x and keeps it as the next shift; delta leads to the token before.
template <class T>
static void shift(const float* x, const void* weight, const void* bias, const void* old, void* fresh, float* y,
                  float* delta, int64_t width, float eps) {
  norm(x, (const T*)weight, (const T*)bias, y, width, eps);
  for (int64_t i = 0; i < width; i += LANES) {
    Vec now = anywhere(y + i);
    anywhere(delta + i) = load((const T*)old + i) - now;
    store((T*)fresh + i, now);
  }
}

// Read, decay and write the state of one head, then norm and gate what was read.
template <class T>
static void head(const Job& j, const Layer& l, const Room& room, int64_t b, int64_t h) {
  const int64_t size = j.size, at = (b * j.heads + h) * size, own = h * size;
  const float *r = room.r + at, *k = room.k + at, *v = room.v + at, *gate = room.gate + at;
  const float* from = l.wkv + at * size;
  float *to = l.new_wkv + at * size, *decay = room.decay + at, *out = room.out + at;
  Vec sum{};
  for (int64_t i = 0; i < size; i += LANES) {
    sum += anywhere(r + i) * anywhere(k + i) * load((const T*)l.bonus + own + i);
    Vec x = l.decay_down ? anywhere(decay + i) : load((const T*)l.decay + own + i);
    anywhere(decay + i) = exponential(-exponential(choose(x > all(10.f), all(10.f), x)));
  }
  const Vec shared = all(total(sum));
  for (int64_t n = 0; n < size; n += LANES) {
    Vec value = anywhere(v + n), read = shared * value;
    for (int64_t i = 0; i < size; i++) {
      Vec state = anywhere(from + i * size + n);
      read += all(r[i]) * state;
      anywhere(to + i * size + n) = state * all(decay[i]) + all(k[i]) * value;
    }
    anywhere(out + n) = read;
  }
  norm(out, (const T*)l.norm_weight + own, (const T*)l.norm_bias + own, out, size, (float)j.head_eps);
  for (int64_t i = 0; i < size; i += LANES) {
    Vec g = anywhere(gate + i);
    anywhere(out + i) *= g * sigmoid(g);
  }
}

template <class T>
static void time_mix(const Job& j, const Layer& l, const Room& room) {
  const int64_t width = j.width, inner = j.heads * j.size, all_mixed = 5 * width;
  const void* lerps[] = {l.lerp_w, l.lerp_k, l.lerp_v, l.lerp_r, l.lerp_g};
  // Mixtures lie in the order w, k, v, r, g, five times `width` a row. RWKV-5 has no w.
#pragma omp for schedule(static)
  for (int64_t b = 0; b < j.batch; b++) {
    float *y = room.y + b * width, *delta = room.delta + b * width, *mixed = room.mixed + b * all_mixed;
    shift<T>(room.x + b * width, l.norm_time_weight, l.norm_time_bias, (const T*)l.time_shift + b * width,
             (T*)l.new_time_shift + b * width, y, delta, width, (float)j.eps);
    for (int64_t i = 0; i < width; i += LANES) {
      Vec now = anywhere(y + i), change = anywhere(delta + i);
      if (l.lerp_down)
        anywhere(room.right + b * width + i) = blend(now, change, (const T*)l.lerp_x + i, j.current);
      else
        for (int m = 1; m < 5; m++)
          anywhere(mixed + m * width + i) = blend(now, change, (const T*)lerps[m] + i, j.current);
    }
  }
  if (l.lerp_down) {
    const int64_t rank = j.mix_rank;
    columns((const T*)l.lerp_down, room.right, width, (const T*)nullptr, room.low, width, 5 * rank, j.batch);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < j.batch * 5 * rank; i++) room.low[i] = tangent(all(room.low[i]))[0];
    for (int64_t b = 0; b < j.batch; b++)
      for (int m = 0; m < 5; m++)
        columns((const T*)l.lerp_up + m * rank * width, room.low + (b * 5 + m) * rank, 0, (const T*)lerps[m],
                room.mixed + b * all_mixed + m * width, rank, width, 1);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t m = 0; m < j.batch * 5; m++) {
      float *mixed = room.mixed + m * width, *y = room.y + m / 5 * width, *delta = room.delta + m / 5 * width;
      for (int64_t i = 0; i < width; i += LANES)
        anywhere(mixed + i) = anywhere(y + i) + anywhere(delta + i) * anywhere(mixed + i);
    }
    columns((const T*)l.decay_down, room.mixed, all_mixed, (const T*)nullptr, room.rank, width, j.decay_rank, j.batch);
  }
  const void* weights[] = {l.key, l.value, l.receptance, l.gate};
  float* answers[] = {room.k, room.v, room.r, room.gate};
  for (int m = 0; m < 4; m++)
    rows((const T*)weights[m], room.mixed + (m + 1) * width, all_mixed, answers[m], inner, width, j.batch);
#pragma omp barrier
  if (l.decay_down) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < j.batch * j.decay_rank; i++) room.rank[i] = tangent(all(room.rank[i]))[0];
    columns((const T*)l.decay_up, room.rank, j.decay_rank, (const T*)l.decay, room.decay, j.decay_rank, inner, j.batch);
#pragma omp barrier
  }
#pragma omp for schedule(static)
  for (int64_t i = 0; i < j.batch * j.heads; i++) head<T>(j, l, room, i / j.heads, i % j.heads);
  rows((const T*)l.output, room.out, inner, room.left, width, inner, j.batch);
#pragma omp barrier
}

template <class T>
static void channel_mix(const Job& j, const Layer& l, const Room& room) {
  const int64_t width = j.width;
  float *key = room.mixed, *gate = room.mixed + j.batch * width;
#pragma omp for schedule(static)
  for (int64_t b = 0; b < j.batch; b++) {
    float *x = room.x + b * width, *y = room.y + b * width, *delta = room.delta + b * width;
    for (int64_t i = 0; i < width; i += LANES) anywhere(x + i) += anywhere(room.left + b * width + i);
    shift<T>(x, l.norm_channel_weight, l.norm_channel_bias, (const T*)l.channel_shift + b * width,
             (T*)l.new_channel_shift + b * width, y, delta, width, (float)j.eps);
    for (int64_t i = 0; i < width; i += LANES) {
      Vec now = anywhere(y + i), change = anywhere(delta + i);
      anywhere(key + b * width + i) = blend(now, change, (const T*)l.channel_lerp_k + i, j.current);
      anywhere(gate + b * width + i) = blend(now, change, (const T*)l.channel_lerp_r + i, j.current);
    }
  }
  rows((const T*)l.channel_key, key, width, room.ffn, j.ffn, width, j.batch);
  rows((const T*)l.channel_receptance, gate, width, room.right, width, width, j.batch);
#pragma omp barrier
#pragma omp for schedule(static)
  for (int64_t i = 0; i < j.batch * j.ffn; i += LANES) {
    Vec x = anywhere(room.ffn + i);
    x = choose(x < Vec{}, Vec{}, x);
    anywhere(room.ffn + i) = x * x;
  }
  rows((const T*)l.channel_value, room.ffn, j.ffn, room.left, width, j.ffn, j.batch);
#pragma omp barrier
#pragma omp for schedule(static)
  for (int64_t i = 0; i < j.batch * width; i += LANES)
    anywhere(room.x + i) += sigmoid(anywhere(room.right + i)) * anywhere(room.left + i);
}

template <class T>
static int step(const Job& j, int threads) {
  Room room(j);
  if (!room.memory) return 1;
  const int64_t width = j.width;
#pragma omp parallel num_threads(threads)
  {
    Flush flush;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < j.batch; b++) {
      const Layer& l = j.layers[0];
      float* x = room.x + b * width;
      for (int64_t i = 0; i < width; i += LANES) anywhere(x + i) = load((const T*)j.embeds + b * width + i);
      norm(x, (const T*)l.norm_in_weight, (const T*)l.norm_in_bias, x, width, (float)j.eps);
    }
    for (int64_t layer = 0; layer < j.depth; layer++) {
      time_mix<T>(j, j.layers[layer], room);
      channel_mix<T>(j, j.layers[layer], room);
    }
#pragma omp for schedule(static)
    for (int64_t b = 0; b < j.batch; b++) {
      float* x = room.x + b * width;
      norm(x, (const T*)j.norm_weight, (const T*)j.norm_bias, x, width, (float)j.eps);
      for (int64_t i = 0; i < width; i += LANES) store((T*)j.hidden + b * width + i, anywhere(x + i));
    }
  }
  return 0;
}

// Both answer 0, or 1 where there is not enough memory.

extern "C" int mmrnn_decode_step(const Job* job, int half, int threads) {
  return half ? step<Half>(*job, threads) : step<float>(*job, threads);
}

struct Linear {
  const void* weight;
  const float* x;
  float* y;
  int64_t out, in, batch;
};

extern "C" int mmrnn_few_rows_linear(const Linear* l, int half, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Flush flush;
    if (half)
      rows((const Half*)l->weight, l->x, l->in, l->y, l->out, l->in, l->batch);
    else
      rows((const float*)l->weight, l->x, l->in, l->y, l->out, l->in, l->batch);
  }
  return 0;
}

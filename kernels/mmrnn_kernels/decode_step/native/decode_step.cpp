// One position of an RWKV-5 or RWKV-6 language model for a few rows: all layers in one call, the activations in fp32.
// The equations are those of arXiv 2404.05892, sections 4.1 and 4.2, in the order of mmrnn's modules.

#include <stdlib.h>

#include "matvec.h"

// Weights of a block, fp32 or bf16, and its states before and after. Of the matrices with scales there are 8-bit codes. Matrices of the low-rank paths are `in out`, the
// others `out in`. RWKV-5 has no low-rank paths: these are null.
struct Layer {
  const void *norm_in_weight, *norm_in_bias;
  const void *norm_time_weight, *norm_time_bias, *norm_channel_weight, *norm_channel_bias;
  const void *lerp_k, *lerp_v, *lerp_r, *lerp_g, *decay, *bonus;
  const void *receptance, *key, *value, *gate, *output, *norm_weight, *norm_bias;
  const void *channel_lerp_k, *channel_lerp_r, *channel_key, *channel_receptance, *channel_value;
  const void *lerp_x, *lerp_w, *lerp_down, *lerp_up, *decay_down, *decay_up;
  const float *receptance_scales, *key_scales, *value_scales, *gate_scales, *output_scales;
  const float *channel_key_scales, *channel_receptance_scales, *channel_value_scales;
  const void* time_shift;
  const float* wkv;
  const void* channel_shift;
  void* new_time_shift;
  float* new_wkv;
  void* new_channel_shift;
};

struct Job {
  int64_t batch, depth, width, heads, size, ffn, mix_rank, decay_rank;
  int64_t has_codes;
  int64_t current;  // the learned weights of the token shift belong to this token (RWKV-5), not to the previous
  double eps, head_eps;
  const Layer* layers;
  const void *embeds, *norm_weight, *norm_bias;
  void* hidden;
};

static inline Vec exp_clamped(Vec x) {
  Vec high = broadcast(80.f);
  ScaledExp p(select(x > high, high, x));
  return select(x < broadcast(-87.f), Vec{}, p.excess * p.scale + p.scale);
}

static inline Vec sigmoid(Vec x) { return broadcast(1.f) / (broadcast(1.f) + exp_clamped(-x)); }
static inline Vec tanh(Vec x) { return broadcast(1.f) - broadcast(2.f) / (broadcast(1.f) + exp_clamped(x + x)); }

// Layer norm of `size` numbers, a multiple of LANES.
template <class T>
static void norm(const float* x, const T* weight, const T* bias, float* y, int64_t size, float eps) {
  Vec sum{}, squares{};
  for (int64_t i = 0; i < size; i += LANES) sum += unaligned(x + i);
  Vec mean = broadcast(horizontal_sum(sum) / size);
  for (int64_t i = 0; i < size; i += LANES) {
    Vec off = unaligned(x + i) - mean;
    squares += off * off;
  }
  Vec scale = broadcast(1.f / __builtin_sqrtf(horizontal_sum(squares) / size + eps));
  for (int64_t i = 0; i < size; i += LANES)
    unaligned(y + i) = (unaligned(x + i) - mean) * scale * load(weight + i) + load(bias + i);
}

// Working memory for all rows, one array after the other.
struct Scratch {
  float *x, *y, *delta, *mixed, *low, *rank, *r, *k, *v, *gate, *decay, *out, *ffn, *left, *right, *memory;

  explicit Scratch(const Job& j) {
    const int64_t inner = j.heads * j.size, b = j.batch;
    int64_t sizes[] = {j.width, j.width, j.width, 5 * j.width, 5 * j.mix_rank, j.decay_rank, inner, inner,
                       inner,   inner,   inner,   inner,       j.ffn,          j.width,      j.width};
    float** arrays[] = {&x, &y, &delta, &mixed, &low, &rank, &r, &k, &v, &gate, &decay, &out, &ffn, &left, &right};
    int64_t scratch = 16;
    for (int64_t size : sizes) scratch += (size * b + 15) / 16 * 16;
    memory = (float*)malloc(sizeof(float) * scratch);
    float* next = (float*)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    for (int i = 0; i < 15; i++) {
      *arrays[i] = next;
      next += (sizes[i] * b + 15) / 16 * 16;
    }
  }
  ~Scratch() { free(memory); }
};

// The mixture of this token (y) and the previous (y + delta).
template <class T>
static inline Vec blend(Vec y, Vec delta, const T* weight, bool current) {
  Vec w = load(weight);
  return y + delta * (current ? broadcast(1.f) - w : w);
}

// Norms x into y and stores it as the next shift; delta = previous token - y.
template <class T>
static void shift(const float* x, const void* weight, const void* bias, const void* old, void* fresh, float* y,
                  float* delta, int64_t width, float eps) {
  norm(x, (const T*)weight, (const T*)bias, y, width, eps);
  for (int64_t i = 0; i < width; i += LANES) {
    Vec now = unaligned(y + i);
    unaligned(delta + i) = load((const T*)old + i) - now;
    store((T*)fresh + i, now);
  }
}

// Reads, decays and writes the state of one head, then norms and gates the output.
template <class T>
static void head(const Job& j, const Layer& l, const Scratch& scratch, int64_t b, int64_t h) {
  const int64_t size = j.size, at = (b * j.heads + h) * size, own = h * size;
  const float *r = scratch.r + at, *k = scratch.k + at, *v = scratch.v + at, *gate = scratch.gate + at;
  const float* from = l.wkv + at * size;
  float *to = l.new_wkv + at * size, *decay = scratch.decay + at, *out = scratch.out + at;
  Vec sum{};
  for (int64_t i = 0; i < size; i += LANES) {
    sum += unaligned(r + i) * unaligned(k + i) * load((const T*)l.bonus + own + i);
    Vec x = l.decay_down ? unaligned(decay + i) : load((const T*)l.decay + own + i);
    unaligned(decay + i) = exp_flushed(-exp_flushed(select(x > broadcast(10.f), broadcast(10.f), x)));
  }
  const Vec shared = broadcast(horizontal_sum(sum));
  for (int64_t n = 0; n < size; n += LANES) {
    Vec value = unaligned(v + n), read = shared * value;
    for (int64_t i = 0; i < size; i++) {
      Vec state = unaligned(from + i * size + n);
      read += broadcast(r[i]) * state;
      unaligned(to + i * size + n) = state * broadcast(decay[i]) + broadcast(k[i]) * value;
    }
    unaligned(out + n) = read;
  }
  norm(out, (const T*)l.norm_weight + own, (const T*)l.norm_bias + own, out, size, (float)j.head_eps);
  for (int64_t i = 0; i < size; i += LANES) {
    Vec g = unaligned(gate + i);
    unaligned(out + i) *= g * sigmoid(g);
  }
}

template <class T, class W>
static void time_mix(const Job& j, const Layer& l, const Scratch& scratch) {
  const int64_t width = j.width, inner = j.heads * j.size, all_mixed = 5 * width;
  const void* lerps[] = {l.lerp_w, l.lerp_k, l.lerp_v, l.lerp_r, l.lerp_g};
  // The mixtures have the order w, k, v, r, g, five times `width` a row. RWKV-5 has no w.
#pragma omp for schedule(static)
  for (int64_t b = 0; b < j.batch; b++) {
    float *y = scratch.y + b * width, *delta = scratch.delta + b * width, *mixed = scratch.mixed + b * all_mixed;
    shift<T>(scratch.x + b * width, l.norm_time_weight, l.norm_time_bias, (const T*)l.time_shift + b * width,
             (T*)l.new_time_shift + b * width, y, delta, width, (float)j.eps);
    for (int64_t i = 0; i < width; i += LANES) {
      Vec now = unaligned(y + i), change = unaligned(delta + i);
      if (l.lerp_down)
        unaligned(scratch.right + b * width + i) = blend(now, change, (const T*)l.lerp_x + i, j.current);
      else
        for (int m = 1; m < 5; m++)
          unaligned(mixed + m * width + i) = blend(now, change, (const T*)lerps[m] + i, j.current);
    }
  }
  if (l.lerp_down) {
    const int64_t rank = j.mix_rank;
    columns((const T*)l.lerp_down, scratch.right, width, (const T*)nullptr, scratch.low, width, 5 * rank, j.batch);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < j.batch * 5 * rank; i++) scratch.low[i] = tanh(broadcast(scratch.low[i]))[0];
    for (int64_t b = 0; b < j.batch; b++)
      for (int m = 0; m < 5; m++)
        columns((const T*)l.lerp_up + m * rank * width, scratch.low + (b * 5 + m) * rank, 0, (const T*)lerps[m],
                scratch.mixed + b * all_mixed + m * width, rank, width, 1);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t m = 0; m < j.batch * 5; m++) {
      float *mixed = scratch.mixed + m * width, *y = scratch.y + m / 5 * width, *delta = scratch.delta + m / 5 * width;
      for (int64_t i = 0; i < width; i += LANES)
        unaligned(mixed + i) = unaligned(y + i) + unaligned(delta + i) * unaligned(mixed + i);
    }
    columns((const T*)l.decay_down, scratch.mixed, all_mixed, (const T*)nullptr, scratch.rank, width, j.decay_rank,
            j.batch);
  }
  const void* weights[] = {l.key, l.value, l.receptance, l.gate};
  const float* scales[] = {l.key_scales, l.value_scales, l.receptance_scales, l.gate_scales};
  float* answers[] = {scratch.k, scratch.v, scratch.r, scratch.gate};
  for (int m = 0; m < 4; m++)
    rows((const W*)weights[m], scales[m], scratch.mixed + (m + 1) * width, all_mixed, answers[m], inner, width, j.batch);
#pragma omp barrier
  if (l.decay_down) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < j.batch * j.decay_rank; i++) scratch.rank[i] = tanh(broadcast(scratch.rank[i]))[0];
    columns((const T*)l.decay_up, scratch.rank, j.decay_rank, (const T*)l.decay, scratch.decay, j.decay_rank, inner,
            j.batch);
#pragma omp barrier
  }
#pragma omp for schedule(static)
  for (int64_t i = 0; i < j.batch * j.heads; i++) head<T>(j, l, scratch, i / j.heads, i % j.heads);
  rows((const W*)l.output, l.output_scales, scratch.out, inner, scratch.left, width, inner, j.batch);
#pragma omp barrier
}

template <class T, class W>
static void channel_mix(const Job& j, const Layer& l, const Scratch& scratch) {
  const int64_t width = j.width;
  float *key = scratch.mixed, *gate = scratch.mixed + j.batch * width;
#pragma omp for schedule(static)
  for (int64_t b = 0; b < j.batch; b++) {
    float *x = scratch.x + b * width, *y = scratch.y + b * width, *delta = scratch.delta + b * width;
    for (int64_t i = 0; i < width; i += LANES) unaligned(x + i) += unaligned(scratch.left + b * width + i);
    shift<T>(x, l.norm_channel_weight, l.norm_channel_bias, (const T*)l.channel_shift + b * width,
             (T*)l.new_channel_shift + b * width, y, delta, width, (float)j.eps);
    for (int64_t i = 0; i < width; i += LANES) {
      Vec now = unaligned(y + i), change = unaligned(delta + i);
      unaligned(key + b * width + i) = blend(now, change, (const T*)l.channel_lerp_k + i, j.current);
      unaligned(gate + b * width + i) = blend(now, change, (const T*)l.channel_lerp_r + i, j.current);
    }
  }
  rows((const W*)l.channel_key, l.channel_key_scales, key, width, scratch.ffn, j.ffn, width, j.batch);
  rows((const W*)l.channel_receptance, l.channel_receptance_scales, gate, width, scratch.right, width, width, j.batch);
#pragma omp barrier
#pragma omp for schedule(static)
  for (int64_t i = 0; i < j.batch * j.ffn; i += LANES) {
    Vec x = unaligned(scratch.ffn + i);
    x = select(x < Vec{}, Vec{}, x);
    unaligned(scratch.ffn + i) = x * x;
  }
  rows((const W*)l.channel_value, l.channel_value_scales, scratch.ffn, j.ffn, scratch.left, width, j.ffn, j.batch);
#pragma omp barrier
#pragma omp for schedule(static)
  for (int64_t i = 0; i < j.batch * width; i += LANES)
    unaligned(scratch.x + i) += sigmoid(unaligned(scratch.right + i)) * unaligned(scratch.left + i);
}

template <class T, class W>
static int step(const Job& j, int threads) {
  Scratch scratch(j);
  if (!scratch.memory) return 1;
  const int64_t width = j.width;
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < j.batch; b++) {
      const Layer& l = j.layers[0];
      float* x = scratch.x + b * width;
      for (int64_t i = 0; i < width; i += LANES) unaligned(x + i) = load((const T*)j.embeds + b * width + i);
      norm(x, (const T*)l.norm_in_weight, (const T*)l.norm_in_bias, x, width, (float)j.eps);
    }
    for (int64_t layer = 0; layer < j.depth; layer++) {
      time_mix<T, W>(j, j.layers[layer], scratch);
      channel_mix<T, W>(j, j.layers[layer], scratch);
    }
#pragma omp for schedule(static)
    for (int64_t b = 0; b < j.batch; b++) {
      float* x = scratch.x + b * width;
      norm(x, (const T*)j.norm_weight, (const T*)j.norm_bias, x, width, (float)j.eps);
      for (int64_t i = 0; i < width; i += LANES) store((T*)j.hidden + b * width + i, unaligned(x + i));
    }
  }
  return 0;
}

// Both return 0, or 1 without enough memory.

extern "C" int mmrnn_decode_step(const Job* job, int is_bf16, int threads) {
  if (job->has_codes) return is_bf16 ? step<Half, Code>(*job, threads) : step<float, Code>(*job, threads);
  return is_bf16 ? step<Half, Half>(*job, threads) : step<float, float>(*job, threads);
}

struct Linear {
  const void* weight;
  const float* scales;  // of codes; null: the weight is fp32 or bf16
  const float* x;
  float* y;
  int64_t out, in, batch;
};

extern "C" int mmrnn_few_rows_linear(const Linear* l, int is_bf16, int threads) {
#pragma omp parallel num_threads(threads)
  {
    FlushDenormals flush;
    if (l->scales)
      rows((const Code*)l->weight, l->scales, l->x, l->in, l->y, l->out, l->in, l->batch);
    else if (is_bf16)
      rows((const Half*)l->weight, nullptr, l->x, l->in, l->y, l->out, l->in, l->batch);
    else
      rows((const float*)l->weight, nullptr, l->x, l->in, l->y, l->out, l->in, l->batch);
  }
  return 0;
}

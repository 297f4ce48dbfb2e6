// The elementwise operators, one pass over memory each way. ../README.md has the mathematics.
// Tensors are contiguous; parameters and their gradients are fp32.

#include "blocks.h"

struct Lerp {
  Tensor x, previous, offsets;  // rows d; offsets n rows d or null
  const Tensor *out, *grads;    // n times rows d; gradients may be null
  Tensor dx, dprevious, doffsets;
  const float* weights;  // n d
  float* dweights;
  const uint8_t* starts;  // rows, or null: their previous row is zero
  int64_t n, rows, d;
  int64_t length;  // of a sample, if there is one previous row a sample; else 0
};

// The previous row of a row, if any: one of `previous`, or, inside of a sample, one of x.
struct PreviousRow {
  Tensor from{};
  int64_t at = 0;
  bool own = false;
  PreviousRow(const Lerp& f, int64_t row) {
    if (row >= f.rows || (f.starts && f.starts[row])) return;
    own = f.length && row % f.length;
    from = own ? f.x : f.previous;
    at = (own ? row - 1 : f.length ? row / f.length : row) * f.d;
  }
  Vec operator()(int64_t j, int n) const { return from.data ? load(from, at + j, n) : Vec{}; }
};

static int lerp_forward(const Lerp& f, int threads) {
  for_each_block(f.rows, f.n * f.d, threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t row = first; row < last; row++) {
      PreviousRow previous_row(f, row);
      for_each_vector(f.d, [&](int64_t j, int n) {
        int64_t at = row * f.d + j;
        Vec x = load(f.x, at, n), delta = previous_row(j, n) - x;
        for (int64_t i = 0; i < f.n; i++) {
          Vec w = load(f.weights + i * f.d + j, n);
          if (f.offsets.data) w += load(f.offsets, i * f.rows * f.d + at, n);
          store(f.out[i], at, x + delta * w, n);
        }
      });
    }
  });
  return 0;
}

// Gradient of the previous row of the row at `at`.
static inline Vec previous_gradient(const Lerp& f, int64_t at, int64_t j, int n) {
  Vec dprev{};
  for (int64_t i = 0; i < f.n; i++) {
    if (!f.grads[i].data) continue;
    Vec w = load(f.weights + i * f.d + j, n);
    if (f.offsets.data) w += load(f.offsets, i * f.rows * f.d + at, n);
    dprev += load(f.grads[i], at, n) * w;
  }
  return dprev;
}

static int lerp_backward(const Lerp& f, int threads) {
  Sums sums(f.rows, f.n * f.d);
  if (!sums.sums) return 1;
  for_each_block(f.rows, f.n * f.d, threads, [&](int64_t first, int64_t last, int64_t block) {
    for (int64_t row = first; row < last; row++) {
      PreviousRow previous_row(f, row);
      bool has_next = PreviousRow(f, row + 1).own, is_first = !f.length || row % f.length == 0;
      int64_t kept = (f.length ? row / f.length : row) * f.d;
      for_each_vector(f.d, [&](int64_t j, int n) {
        int64_t at = row * f.d + j;
        Vec delta = previous_row(j, n) - load(f.x, at, n), sum{}, dprev{};
        for (int64_t i = 0; i < f.n; i++) {
          int64_t there = i * f.rows * f.d + at;
          Vec g = f.grads[i].data ? load(f.grads[i], at, n) : Vec{};
          Vec w = load(f.weights + i * f.d + j, n);
          if (f.offsets.data) {
            w += load(f.offsets, there, n);
            store(f.doffsets, there, g * delta, n);
          }
          sum += g;
          dprev += g * w;
          add(sums[block] + i * f.d + j, g * delta, n);
        }
        if (is_first) store(f.dprevious, kept + j, previous_row.from.data ? dprev : Vec{}, n);
        sum -= dprev;
        if (has_next) sum += previous_gradient(f, at + f.d, j, n);
        store(f.dx, at, sum, n);
      });
    }
  });
  sums.into(f.dweights);
  return 0;
}

// 1 / (1 + e^-x) without overflow.
static inline Vec sigmoid(Vec x) {
  Int negative = x < Vec{};
  Vec e = exp_flushed(select(negative, x, -x));
  return select(negative, e, broadcast(1.f)) / (broadcast(1.f) + e);
}

struct Norm {
  Tensor x, gate, out, grad, dx, dgate;  // rows heads size
  const float *weight, *bias;            // heads size
  float* dparameters;                    // of the weight, then of the bias
  int64_t rows, heads, size;
  double eps;
};

// Mean and 1 / deviation of one head at one position.
struct Moments {
  Vec mean, scale;
  Moments(const Tensor& x, int64_t from, int64_t size, double eps) {
    Vec sum{}, square{};
    for_each_vector(size, [&](int64_t j, int n) { sum += load(x, from + j, n); });
    mean = broadcast(horizontal_sum(sum) / size);
    for_each_vector(size, [&](int64_t j, int n) {
      Vec centred = mask_tail(load(x, from + j, n) - mean, n);
      square += centred * centred;
    });
    scale = broadcast(1.f / __builtin_sqrtf(horizontal_sum(square) / size + (float)eps));
  }
};

static int norm_forward(const Norm& f, int threads) {
  for_each_block(f.rows, 8 * f.heads * f.size, threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t head = first * f.heads; head < last * f.heads; head++) {
      int64_t from = head * f.size, channel = head % f.heads * f.size;
      Moments m(f.x, from, f.size, f.eps);
      for_each_vector(f.size, [&](int64_t j, int n) {
        Vec g = load(f.gate, from + j, n), y = (load(f.x, from + j, n) - m.mean) * m.scale;
        y = y * load(f.weight + channel + j, n) + load(f.bias + channel + j, n);
        store(f.out, from + j, y * (g * sigmoid(g)), n);
      });
    }
  });
  return 0;
}

static int norm_backward(const Norm& f, int threads) {
  Sums sums(f.rows, 2 * f.heads * f.size);
  if (!sums.sums) return 1;
  for_each_block(f.rows, 8 * f.heads * f.size, threads, [&](int64_t first, int64_t last, int64_t block) {
    for (int64_t head = first * f.heads; head < last * f.heads; head++) {
      int64_t from = head * f.size, channel = head % f.heads * f.size;
      float *dweight = sums[block] + channel, *dbias = dweight + f.heads * f.size;
      Moments m(f.x, from, f.size, f.eps);
      Vec sum_dy{}, sum_dyy{};
      for_each_vector(f.size, [&](int64_t j, int n) {
        Vec g = load(f.gate, from + j, n), s = sigmoid(g), out = load(f.grad, from + j, n);
        Vec y = (load(f.x, from + j, n) - m.mean) * m.scale, w = load(f.weight + channel + j, n);
        Vec dy = out * g * s, slope = s * (broadcast(1.f) + g * (broadcast(1.f) - s));
        store(f.dgate, from + j, out * (y * w + load(f.bias + channel + j, n)) * slope, n);
        add(dweight + j, dy * y, n);
        add(dbias + j, dy, n);
        sum_dy += dy * w;
        sum_dyy += dy * w * y;
      });
      Vec mean = broadcast(horizontal_sum(sum_dy) / f.size), slope = broadcast(horizontal_sum(sum_dyy) / f.size);
      for_each_vector(f.size, [&](int64_t j, int n) {
        Vec g = load(f.gate, from + j, n), y = (load(f.x, from + j, n) - m.mean) * m.scale;
        Vec dy = load(f.grad, from + j, n) * g * sigmoid(g) * load(f.weight + channel + j, n);
        store(f.dx, from + j, m.scale * (dy - mean - y * slope), n);
      });
    }
  });
  sums.into(f.dparameters);
  return 0;
}

struct Pointwise {
  Tensor a, b, out, grad, da, db;
  int64_t size;
};

// Calls f(at, n) for all vectors of `size` numbers.
template <class F>
static int for_each_element_vector(int64_t size, int threads, F f) {
  const int64_t row = 1024;
  for_each_block((size + row - 1) / row, row, threads, [&](int64_t first, int64_t last, int64_t) {
    int64_t from = first * row, to = last * row < size ? last * row : size;
    for_each_vector(to - from, [&](int64_t j, int n) { f(from + j, n); });
  });
  return 0;
}

static int square_forward(const Pointwise& f, int threads) {
  return for_each_element_vector(f.size, threads, [&](int64_t at, int n) {
    Vec x = load(f.a, at, n), y = select(x < Vec{}, Vec{}, x);
    store(f.out, at, y * y, n);
  });
}

static int square_backward(const Pointwise& f, int threads) {
  return for_each_element_vector(f.size, threads, [&](int64_t at, int n) {
    Vec x = load(f.a, at, n), y = select(x < Vec{}, Vec{}, x);
    store(f.da, at, (y + y) * load(f.grad, at, n), n);
  });
}

static int gate_forward(const Pointwise& f, int threads) {
  return for_each_element_vector(f.size, threads, [&](int64_t at, int n) {
    store(f.out, at, sigmoid(load(f.a, at, n)) * load(f.b, at, n), n);
  });
}

static int gate_backward(const Pointwise& f, int threads) {
  return for_each_element_vector(f.size, threads, [&](int64_t at, int n) {
    Vec s = sigmoid(load(f.a, at, n)), g = load(f.grad, at, n);
    store(f.db, at, g * s, n);
    store(f.da, at, g * load(f.b, at, n) * s * (broadcast(1.f) - s), n);
  });
}

// All return 0, or 1 without enough memory.
#define EXPORT(NAME, JOB) \
  extern "C" int mmrnn_##NAME(const JOB* f, int threads) { return NAME(*f, threads); }

EXPORT(lerp_forward, Lerp)
EXPORT(lerp_backward, Lerp)
EXPORT(norm_forward, Norm)
EXPORT(norm_backward, Norm)
EXPORT(square_forward, Pointwise)
EXPORT(square_backward, Pointwise)
EXPORT(gate_forward, Pointwise)
EXPORT(gate_backward, Pointwise)

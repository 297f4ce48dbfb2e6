// The elementwise neighbours of the matrix products, one pass over memory each way. The maths is in ../README.md.
// Tensors are contiguous; parameters and their gradients are fp32.

#include "team.h"

struct Lerp {
  Tensor x, previous, offsets;  // rows d; the offsets, if any: n rows d
  const Tensor *out, *grads;    // n times rows d; some of the gradients are none
  Tensor dx, dprevious, doffsets;
  const float* weights;  // n d
  float* dweights;
  const uint8_t* starts;  // of rows, if any: before these there was nothing
  int64_t n, rows, d;
  int64_t length;  // of a sample, where there is only one previous row for each
};

// The row before a row, if any: one of `previous`, or, inside of a sample, one of x.
struct Before {
  Tensor from{};
  int64_t at = 0;
  bool own = false;
  Before(const Lerp& f, int64_t row) {
    if (row >= f.rows || (f.starts && f.starts[row])) return;
    own = f.length && row % f.length;
    from = own ? f.x : f.previous;
    at = (own ? row - 1 : f.length ? row / f.length : row) * f.d;
  }
  Vec operator()(int64_t j, int n) const { return from.data ? load(from, at + j, n) : Vec{}; }
};

static int lerp_forward(const Lerp& f, int threads) {
  every_block(f.rows, f.n * f.d, threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t row = first; row < last; row++) {
      Before before(f, row);
      along(f.d, [&](int64_t j, int n) {
        int64_t at = row * f.d + j;
        Vec x = load(f.x, at, n), delta = before(j, n) - x;
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

// What the gradients of one row are to the row before it.
static inline Vec handed_down(const Lerp& f, int64_t at, int64_t j, int n) {
  Vec late{};
  for (int64_t i = 0; i < f.n; i++) {
    if (!f.grads[i].data) continue;
    Vec w = load(f.weights + i * f.d + j, n);
    if (f.offsets.data) w += load(f.offsets, i * f.rows * f.d + at, n);
    late += load(f.grads[i], at, n) * w;
  }
  return late;
}

static int lerp_backward(const Lerp& f, int threads) {
  Sums sums(f.rows, f.n * f.d);
  if (!sums.all) return 1;
  every_block(f.rows, f.n * f.d, threads, [&](int64_t first, int64_t last, int64_t block) {
    for (int64_t row = first; row < last; row++) {
      Before before(f, row);
      bool hears = Before(f, row + 1).own, keeps = !f.length || row % f.length == 0;
      int64_t kept = (f.length ? row / f.length : row) * f.d;
      along(f.d, [&](int64_t j, int n) {
        int64_t at = row * f.d + j;
        Vec delta = before(j, n) - load(f.x, at, n), sum{}, late{};
        for (int64_t i = 0; i < f.n; i++) {
          int64_t there = i * f.rows * f.d + at;
          Vec g = f.grads[i].data ? load(f.grads[i], at, n) : Vec{};
          Vec w = load(f.weights + i * f.d + j, n);
          if (f.offsets.data) {
            w += load(f.offsets, there, n);
            store(f.doffsets, there, g * delta, n);
          }
          sum += g;
          late += g * w;
          add(sums[block] + i * f.d + j, g * delta, n);
        }
        if (keeps) store(f.dprevious, kept + j, before.from.data ? late : Vec{}, n);
        sum -= late;
        if (hears) sum += handed_down(f, at + f.d, j, n);
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
  Vec e = exponential(choose(negative, x, -x));
  return choose(negative, e, all(1.f)) / (all(1.f) + e);
}

struct Norm {
  Tensor x, gate, out, grad, dx, dgate;  // rows heads size
  const float *weight, *bias;            // heads size
  float* dparameters;                    // of the weight, then of the bias
  int64_t rows, heads, size;
  double eps;
};

// Mean and 1 / deviation of what one head says at one position.
struct Moments {
  Vec mean, scale;
  Moments(const Tensor& x, int64_t from, int64_t size, double eps) {
    Vec sum{}, square{};
    along(size, [&](int64_t j, int n) { sum += load(x, from + j, n); });
    mean = all(total(sum) / size);
    along(size, [&](int64_t j, int n) {
      Vec centred = keep(load(x, from + j, n) - mean, n);
      square += centred * centred;
    });
    scale = all(1.f / __builtin_sqrtf(total(square) / size + (float)eps));
  }
};

static int norm_forward(const Norm& f, int threads) {
  every_block(f.rows, 8 * f.heads * f.size, threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t head = first * f.heads; head < last * f.heads; head++) {
      int64_t from = head * f.size, channel = head % f.heads * f.size;
      Moments m(f.x, from, f.size, f.eps);
      along(f.size, [&](int64_t j, int n) {
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
  if (!sums.all) return 1;
  every_block(f.rows, 8 * f.heads * f.size, threads, [&](int64_t first, int64_t last, int64_t block) {
    for (int64_t head = first * f.heads; head < last * f.heads; head++) {
      int64_t from = head * f.size, channel = head % f.heads * f.size;
      float *dweight = sums[block] + channel, *dbias = dweight + f.heads * f.size;
      Moments m(f.x, from, f.size, f.eps);
      Vec straight{}, slanted{};
      along(f.size, [&](int64_t j, int n) {
        Vec g = load(f.gate, from + j, n), s = sigmoid(g), out = load(f.grad, from + j, n);
        Vec y = (load(f.x, from + j, n) - m.mean) * m.scale, w = load(f.weight + channel + j, n);
        Vec dy = out * g * s, slope = s * (all(1.f) + g * (all(1.f) - s));
        store(f.dgate, from + j, out * (y * w + load(f.bias + channel + j, n)) * slope, n);
        add(dweight + j, dy * y, n);
        add(dbias + j, dy, n);
        straight += dy * w;
        slanted += dy * w * y;
      });
      Vec mean = all(total(straight) / f.size), slope = all(total(slanted) / f.size);
      along(f.size, [&](int64_t j, int n) {
        Vec g = load(f.gate, from + j, n), y = (load(f.x, from + j, n) - m.mean) * m.scale;
        Vec dy = load(f.grad, from + j, n) * g * sigmoid(g) * load(f.weight + channel + j, n);
        store(f.dx, from + j, m.scale * (dy - mean - y * slope), n);
      });
    }
  });
  sums.into(f.dparameters);
  return 0;
}

struct Flat {
  Tensor a, b, out, grad, da, db;
  int64_t size;
};

// f(at, n) for all vectors of `size` numbers.
template <class F>
static int everywhere(int64_t size, int threads, F f) {
  const int64_t row = 1024;
  every_block((size + row - 1) / row, row, threads, [&](int64_t first, int64_t last, int64_t) {
    int64_t from = first * row, to = last * row < size ? last * row : size;
    along(to - from, [&](int64_t j, int n) { f(from + j, n); });
  });
  return 0;
}

static int square_forward(const Flat& f, int threads) {
  return everywhere(f.size, threads, [&](int64_t at, int n) {
    Vec x = load(f.a, at, n), y = choose(x < Vec{}, Vec{}, x);
    store(f.out, at, y * y, n);
  });
}

static int square_backward(const Flat& f, int threads) {
  return everywhere(f.size, threads, [&](int64_t at, int n) {
    Vec x = load(f.a, at, n), y = choose(x < Vec{}, Vec{}, x);
    store(f.da, at, (y + y) * load(f.grad, at, n), n);
  });
}

static int gate_forward(const Flat& f, int threads) {
  return everywhere(f.size, threads, [&](int64_t at, int n) {
    store(f.out, at, sigmoid(load(f.a, at, n)) * load(f.b, at, n), n);
  });
}

static int gate_backward(const Flat& f, int threads) {
  return everywhere(f.size, threads, [&](int64_t at, int n) {
    Vec s = sigmoid(load(f.a, at, n)), g = load(f.grad, at, n);
    store(f.db, at, g * s, n);
    store(f.da, at, g * load(f.b, at, n) * s * (all(1.f) - s), n);
  });
}

// All answer 0, or 1 where there is not enough memory.
#define EXPORT(NAME, JOB) \
  extern "C" int mmrnn_##NAME(const JOB* f, int threads) { return NAME(*f, threads); }

EXPORT(lerp_forward, Lerp)
EXPORT(lerp_backward, Lerp)
EXPORT(norm_forward, Norm)
EXPORT(norm_backward, Norm)
EXPORT(square_forward, Flat)
EXPORT(square_backward, Flat)
EXPORT(gate_forward, Flat)
EXPORT(gate_backward, Flat)

#include "rows.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define PIXELBERT_X86 1
#endif

namespace pixelbert {
namespace {

template <typename Vector, typename Scalar>
PIXELBERT_ALWAYS_INLINE Vector load(const Scalar* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename Vector, typename Scalar>
PIXELBERT_ALWAYS_INLINE void store(Scalar* to, Vector vector) {
  __builtin_memcpy(to, &vector, sizeof(vector));
}

template <typename Kind>
PIXELBERT_ALWAYS_INLINE void select_body(const typename Kind::Scalar* const* pixels, int64_t channels,
                                         typename Kind::Scalar* out, uint8_t* winners) {
  using Lanes = typename Kind::Lanes;
  int64_t c = 0;
  for (; c + Kind::kLanes <= channels; c += Kind::kLanes) {
    auto best = load<typename Kind::Values>(pixels[0] + c);
    auto best_key = Kind::key(best);
    Lanes winner = {};
    for (int pixel = 1; pixel < kPixels; ++pixel) {
      const auto value = load<typename Kind::Values>(pixels[pixel] + c);
      const auto key = Kind::key(value);
      const Lanes take = (key > best_key) | Kind::is_nan(key);
      best = take ? value : best;
      best_key = take ? key : best_key;
      winner = take ? (Lanes{} + static_cast<typename Kind::Lane>(pixel)) : winner;
    }
    store(out + c, best);
    store(winners + c, __builtin_convertvector(winner, typename Kind::Bytes));
  }
  for (; c < channels; ++c) {
    int winner = 0;
    auto best_key = Kind::key(pixels[0][c]);
    for (int pixel = 1; pixel < kPixels; ++pixel) {
      const auto key = Kind::key(pixels[pixel][c]);
      if (key > best_key || Kind::is_nan(key)) best_key = key, winner = pixel;
    }
    out[c] = pixels[winner][c];
    winners[c] = static_cast<uint8_t>(winner);
  }
}

template <typename Kind>
PIXELBERT_ALWAYS_INLINE void add_body(const typename Kind::Wide* vector, int64_t channels,
                                      typename Kind::Scalar* out) {
  for (int64_t c = 0; c < channels; ++c) out[c] = Kind::narrow(Kind::widen(out[c]) + vector[c]);
}

template <typename Kind>
PIXELBERT_ALWAYS_INLINE void scatter_body(const typename Kind::Scalar* grad, const uint8_t* winners,
                                          int64_t channels, typename Kind::Scalar* const* pixels) {
  using Lanes = typename Kind::Lanes;
  using Values = typename Kind::Values;
  int64_t c = 0;
  for (; c + Kind::kLanes <= channels; c += Kind::kLanes) {
    const Values value = load<Values>(grad + c);
    const Lanes winner = __builtin_convertvector(load<typename Kind::Bytes>(winners + c), Lanes);
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const Lanes take = winner == static_cast<typename Kind::Lane>(pixel);
      store(pixels[pixel] + c, reinterpret_cast<Values>(reinterpret_cast<Lanes>(value) & take));
    }
  }
  for (; c < channels; ++c) {
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      pixels[pixel][c] = winners[c] == pixel ? grad[c] : typename Kind::Scalar{0};
    }
  }
}

// The three bodies as functions for one instruction set.
#define PIXELBERT_ROWS(LEVEL, TARGET)                                                                         \
  template <typename Kind>                                                                                    \
  struct LEVEL {                                                                                              \
    using Scalar = typename Kind::Scalar;                                                                     \
    TARGET static void select(const Scalar* const* pixels, int64_t channels, Scalar* out, uint8_t* winners) { \
      select_body<Kind>(pixels, channels, out, winners);                                                      \
    }                                                                                                         \
    TARGET static void add(const typename Kind::Wide* vector, int64_t channels, Scalar* out) {                \
      add_body<Kind>(vector, channels, out);                                                                  \
    }                                                                                                         \
    TARGET static void scatter(const Scalar* grad, const uint8_t* winners, int64_t channels,                  \
                               Scalar* const* pixels) {                                                       \
      scatter_body<Kind>(grad, winners, channels, pixels);                                                    \
    }                                                                                                         \
    static constexpr RowKernels<Kind> kernels = {select, add, scatter};                                       \
  };

PIXELBERT_ROWS(Portable, )
#ifdef PIXELBERT_X86
PIXELBERT_ROWS(Avx2, __attribute__((target("avx2"))))
PIXELBERT_ROWS(Avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))))
#endif

int64_t best_level() {
#ifdef PIXELBERT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return 2;
  }
  if (__builtin_cpu_supports("avx2")) return 1;
#endif
  return 0;
}

std::atomic<int64_t>& current_level() {
  static std::atomic<int64_t> level{best_level()};
  return level;
}

}  // namespace

int64_t use_level(int64_t level) {
  current_level() = std::clamp<int64_t>(level, 0, best_level());
  return current_level();
}

template <typename Kind>
const RowKernels<Kind>& row_kernels() {
#ifdef PIXELBERT_X86
  const int64_t level = current_level();
  if (level == 2) return Avx512<Kind>::kernels;
  if (level == 1) return Avx2<Kind>::kernels;
#endif
  return Portable<Kind>::kernels;
}

template const RowKernels<Float32>& row_kernels<Float32>();
template const RowKernels<Float64>& row_kernels<Float64>();
template const RowKernels<BFloat16>& row_kernels<BFloat16>();
template const RowKernels<Float16>& row_kernels<Float16>();

}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CompositeExplicitAutograd, library) {
  library.impl("use_cpu_level", TORCH_BOX(&pixelbert::use_level));
}

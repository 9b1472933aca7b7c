#include "rows.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>

#define PIXELBERT_OF_LEVEL "rows_of_level.h"
#include "levels.h"

namespace pixelbert {
namespace {

int64_t best_level() {
#if defined(__x86_64__)
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

int64_t level_in_use() { return current_level(); }

template <typename Kind>
const RowKernels<Kind>& row_kernels() {
#if defined(__x86_64__)
  const int64_t level = level_in_use();
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

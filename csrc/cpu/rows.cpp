#include "rows.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#define PIXELBERT_X86 1
#endif

// Vectors are written in the compilers' own vector types. Each instruction set needs its own copy of the source: a
// function compiled for no set in particular has its vectors taken apart before it could be inlined into one.
#define PIXELBERT_LEVEL Portable
#define PIXELBERT_TARGET
#define PIXELBERT_VECTOR_BYTES 16
#include "rows_of_level.h"

#ifdef PIXELBERT_X86
#define PIXELBERT_LEVEL Avx2
#define PIXELBERT_TARGET __attribute__((target("avx2")))
#define PIXELBERT_VECTOR_BYTES 32
#include "rows_of_level.h"

#define PIXELBERT_LEVEL Avx512
#define PIXELBERT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define PIXELBERT_VECTOR_BYTES 64
#include "rows_of_level.h"
#endif

namespace pixelbert {
namespace {

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

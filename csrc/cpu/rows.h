// What is done along the channels of one window, compiled for several instruction sets and chosen at run time.
#pragma once

#include <cstdint>

#include "../windows.h"
#include "kinds.h"

namespace pixelbert {

// Pixels are given by four pointers in row-major order; channels are neighbours in memory.
template <typename Kind>
struct RowKernels {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  // out[c] = the winning value, winners[c] = which pixel it came from.
  void (*select)(const Scalar* const* pixels, int64_t channels, Scalar* out, uint8_t* winners);
  // out[c] += vector[c], in the wide type, rounded once.
  void (*add)(const Wide* vector, int64_t channels, Scalar* out);
  // pixels[winners[c]][c] = grad[c], and zero at the other three.
  void (*scatter)(const Scalar* grad, const uint8_t* winners, int64_t channels, Scalar* const* pixels);
};

// The kernels for this machine; the level chosen is the best it has unless `use_level` has lowered it.
template <typename Kind>
const RowKernels<Kind>& row_kernels();

// Use at most instruction set `level` (0 portable, 1 AVX2, 2 AVX-512); returns the level in use.
int64_t use_level(int64_t level);

}  // namespace pixelbert

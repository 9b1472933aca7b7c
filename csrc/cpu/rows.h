// What is done along the channels of one window, compiled for several instruction sets and chosen at run time.
#pragma once

#include <cstdint>

#include "../kinds.h"
#include "../windows.h"

namespace pixelbert {

constexpr int64_t kSelectBlock = 512;  // a multiple of every vector; four pixels of them fit into the first cache

// Pixels are given by four pointers in row-major order; channels are neighbours in memory.
template <typename Kind>
struct RowKernels {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  // out[c] = the winning value plus vector[c] (in the wide type, rounded once), winners[c] = which pixel it came
  // from. `vector` and `winners` may be null.
  void (*select)(const Scalar* const* pixels, int64_t channels, const Wide* vector, Scalar* out, uint8_t* winners);
  // pixels[winners[c]][c] = grad[c], and zero at the other three.
  void (*scatter)(const Scalar* grad, const uint8_t* winners, int64_t channels, Scalar* const* pixels);
};

// The kernels for this machine; the level chosen is the best it has unless `use_level` has lowered it.
template <typename Kind>
const RowKernels<Kind>& row_kernels();

// Use at most instruction set `level` (0 portable, 1 AVX2, 2 AVX-512); returns the level in use.
int64_t use_level(int64_t level);
int64_t level_in_use();

}  // namespace pixelbert

// What both directions of pixel_embed on a CPU share.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "large_pages.h"
#include "read_windows.h"
#include "rows.h"
#include "tensors.h"
#include "window_pixels.h"

namespace pixelbert {

// Windows whose pixels are gathered, and multiplied, at a time: with 2,048 channels some 8 MB in float32. More of
// them in 16 bits, where oneDNN prepares the weight anew for each product and is fast only on thousands of rows.
template <typename Kind>
constexpr int64_t kTile = sizeof(typename Kind::Scalar) == 2 ? 1024 : 256;

// Windows of a tile: as few tiles as there must be, all about the same size.
template <typename Kind>
int64_t tile_size(int64_t windows) {
  const int64_t tiles = std::max<int64_t>(1, (windows + kTile<Kind> - 1) / kTile<Kind>);
  return std::max<int64_t>(1, (windows + tiles - 1) / tiles);
}

// An uninitialised matrix of `like`'s dtype that lives as long as the op runs.
inline torch::stable::Tensor scratch_matrix(const torch::stable::Tensor& like, int64_t rows, int64_t columns) {
  torch::stable::Tensor matrix = torch::stable::new_empty(like, {rows, columns});
  prefer_large_pages(matrix.mutable_data_ptr(), matrix.numel() * like.element_size());
  return matrix;
}

// Calls run(begin, end) with ranges of at most kWindowChunk of `number` windows, on several threads.
template <typename Run>
void for_chunks(int64_t number, int64_t elements, const Run& run) {
  const int64_t chunks = (number + kWindowChunk - 1) / kWindowChunk;
  torch::stable::parallel_for(0, chunks, grain_for(kWindowChunk * elements), [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      run(chunk * kWindowChunk, std::min((chunk + 1) * kWindowChunk, number));
    }
  });
}

// rows[4 * i + pixel] = the channels of that pixel of windows[i].
template <typename Scalar, typename Value>
void gather_pixels(const WindowPixels<const Scalar>& map, const int64_t* windows, int64_t number, Value* rows) {
  for_chunks(number, kPixels * map.shape.channels, [&](int64_t begin, int64_t end) {
    map.read(windows + begin, end - begin, rows + kPixels * begin * map.shape.channels);
  });
}

// Calls run(i, pixels) for each of `number` windows, with pointers to the channels of its four pixels, neighbours.
template <typename Scalar, typename Run>
void for_windows(const WindowPixels<const Scalar>& map, const int64_t* windows, int64_t number, const Run& run) {
  const int64_t channels = map.shape.channels;
  for_chunks(number, kPixels * channels, [&](int64_t begin, int64_t end) {
    std::vector<Scalar> copied(map.rows_are_neighbours() ? 0 : kPixels * kWindowChunk * channels);
    if (!map.rows_are_neighbours()) map.read(windows + begin, end - begin, copied.data());
    for (int64_t i = begin; i < end; ++i) {
      const Scalar* pixels[kPixels];
      if (map.rows_are_neighbours()) {
        map.point(windows[i], pixels);
      } else {
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          pixels[pixel] = copied.data() + (kPixels * (i - begin) + pixel) * channels;
        }
      }
      run(i, pixels);
    }
  });
}

}  // namespace pixelbert

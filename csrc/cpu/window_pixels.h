// Windows of a map of any strides as rows of channels, which is what products and row kernels take, and back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../windows.h"

namespace pixelbert {

constexpr int64_t kWindowChunk = 16;   // windows handled by a thread at a time
constexpr int64_t kLineChannels = 16;  // a cache line of float32: what is transposed at a time

// The four pixels of each window of a map.
template <typename Scalar>
struct WindowPixels {
  Scalar* map;
  MapShape shape;
  MapStrides strides;

  bool rows_are_neighbours() const { return strides.channel == 1; }

  Scalar* origin(int64_t window) const {
    return map + window / shape.places() * strides.batch + window_offset(shape, strides, window % shape.places());
  }

  // Where the channels of each pixel begin, where channels are neighbours.
  void point(int64_t window, Scalar** pixels) const {
    for (int pixel = 0; pixel < kPixels; ++pixel) pixels[pixel] = origin(window) + pixel_offset(strides, pixel);
  }

  // rows[4 * i + pixel] = the channels of that pixel of windows[i].
  template <typename Value>
  void read(const int64_t* windows, int64_t number, Value* rows) const {
    move<true>(windows, number, rows);
  }

  // The channels of each pixel of windows[i] = rows[4 * i + pixel].
  void write(const int64_t* windows, int64_t number, const Scalar* rows) const {
    move<false>(windows, number, rows);
  }

 private:
  template <bool kRead, typename Value>
  void move(const int64_t* windows, int64_t number, Value* rows) const {
    for (int64_t begin = 0; begin < number; begin += kWindowChunk) {
      const int64_t size = std::min(kWindowChunk, number - begin);
      Value* chunk = rows + kPixels * begin * shape.channels;
      rows_are_neighbours() ? move_rows<kRead>(windows + begin, size, chunk)
                            : move_lines<kRead>(windows + begin, size, chunk);
    }
  }

  template <bool kRead, typename Value>
  void move_rows(const int64_t* windows, int64_t number, Value* rows) const {
    for (int64_t i = 0; i < number; ++i) {
      Scalar* pixels[kPixels];
      point(windows[i], pixels);
      for (int pixel = 0; pixel < kPixels; ++pixel, rows += shape.channels) {
        if constexpr (kRead) {
          std::copy_n(pixels[pixel], shape.channels, rows);
        } else {
          std::copy_n(rows, shape.channels, pixels[pixel]);
        }
      }
    }
  }

  // One channel of several windows after another, so that each line of the map and of the rows is used while it is in
  // the first cache.
  template <bool kRead, typename Value>
  void move_lines(const int64_t* windows, int64_t number, Value* rows) const {
    Scalar* origins[kWindowChunk];
    for (int64_t i = 0; i < number; ++i) origins[i] = origin(windows[i]);
    const int64_t offsets[kPixels] = {0, strides.column, strides.row, strides.row + strides.column};
    std::remove_const_t<Value> lines[kPixels * kWindowChunk][kLineChannels];
    for (int64_t first = 0; first < shape.channels; first += kLineChannels) {
      const int64_t size = std::min(kLineChannels, shape.channels - first);
      if constexpr (!kRead) {
        for (int64_t i = 0; i < kPixels * number; ++i) std::copy_n(rows + i * shape.channels + first, size, lines[i]);
      }
      for (int64_t c = 0; c < size; ++c) {
        const int64_t channel = (first + c) * strides.channel;
        for (int64_t i = 0; i < number; ++i) {
          Scalar* from = origins[i] + channel;
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            if constexpr (kRead) {
              lines[kPixels * i + pixel][c] = from[offsets[pixel]];
            } else {
              from[offsets[pixel]] = lines[kPixels * i + pixel][c];
            }
          }
        }
      }
      if constexpr (kRead) {
        for (int64_t i = 0; i < kPixels * number; ++i) std::copy_n(lines[i], size, rows + i * shape.channels + first);
      }
    }
  }
};

}  // namespace pixelbert

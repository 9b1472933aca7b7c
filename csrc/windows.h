// Where the 2 x 2 windows of a map lie and which of their pixels wins.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pixelbert {

constexpr int kPixels = 4;  // of a window, in row-major order

struct MapShape {
  int64_t batch, channels, height, width;

  PIXELBERT_HOST_DEVICE int64_t pooled_height() const { return height / 2; }
  PIXELBERT_HOST_DEVICE int64_t pooled_width() const { return width / 2; }
  PIXELBERT_HOST_DEVICE int64_t places() const { return pooled_height() * pooled_width(); }

  // Windows that cover the whole map, an odd last row and column too, which no place reads.
  PIXELBERT_HOST_DEVICE int64_t covering_height() const { return (height + 1) / 2; }
  PIXELBERT_HOST_DEVICE int64_t covering_width() const { return (width + 1) / 2; }
  PIXELBERT_HOST_DEVICE int64_t covering_windows() const { return covering_height() * covering_width(); }
};

struct MapStrides {
  int64_t batch, channel, row, column;
};

// The offset of a window's first pixel from the start of its image's first channel; windows are counted from zero.
PIXELBERT_HOST_DEVICE int64_t window_offset(const MapStrides& strides, int64_t window_row, int64_t window_column) {
  return 2 * window_row * strides.row + 2 * window_column * strides.column;
}

PIXELBERT_HOST_DEVICE int64_t window_offset(const MapShape& shape, const MapStrides& strides, int64_t place) {
  return window_offset(strides, place / shape.pooled_width(), place % shape.pooled_width());
}

PIXELBERT_HOST_DEVICE int64_t pixel_offset(const MapStrides& strides, int pixel) {
  return (pixel >> 1) * strides.row + (pixel & 1) * strides.column;
}

// A row of positions: a place to read, none (-1), or a number no check has refused, which must not be followed.
enum class RowKind { kPlace, kNone, kInvalid };

PIXELBERT_HOST_DEVICE RowKind row_kind(const MapShape& shape, int64_t image, int64_t place) {
  if (place == -1) return RowKind::kNone;
  const bool inside = image >= 0 && image < shape.batch && place >= 0 && place < shape.places();
  return inside ? RowKind::kPlace : RowKind::kInvalid;
}

// As max_pool2d: a later pixel wins if it is greater, or NaN; so the first maximum and the last NaN do.
template <typename Value>
PIXELBERT_HOST_DEVICE bool takes_over(Value value, Value best) {
  return value > best || value != value;
}

}  // namespace pixelbert

// pixel_embed on a CPU, forward: windows that rows read are gathered, multiplied and pooled, each once, a tile at a
// time.
#include "pixel_embed.h"

#include <torch/csrc/stable/library.h>

#include <limits>
#include <optional>
#include <string>

#include "products.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

template <typename Kind>
struct Output {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;

  const ReadWindows& read;
  const Wide* vector;
  int64_t dimensions, pooled;  // numbers in a row of `out` and of `winners`
  Scalar* out;
  uint8_t* winners;

  uint8_t* winners_of(int64_t window) const { return winners + read.first_reader(window) * pooled; }

  // The first reader of a window has its row; the others get a copy.
  void copy_to_readers(int64_t window) const {
    const int64_t first = read.first_reader(window);
    for (int64_t at = read.starts[window] + 1; at < read.starts[window + 1]; ++at) {
      std::copy_n(out + first * dimensions, dimensions, out + read.rows[at] * dimensions);
      std::copy_n(winners + first * pooled, pooled, winners + read.rows[at] * pooled);
    }
  }

  void fill_without_place(const MapShape& shape, const int32_t* positions, const int32_t* image_index,
                          int64_t sequences, int64_t count) const {
    for (int64_t row = 0; row < sequences * count; ++row) {
      const RowKind kind = row_kind(shape, image_index ? image_index[row / count] : row / count, positions[row]);
      if (kind == RowKind::kPlace) continue;
      const Wide value = kind == RowKind::kNone ? Wide{0} : std::numeric_limits<Wide>::quiet_NaN();
      std::fill_n(out + row * dimensions, dimensions, Kind::narrow(value));
      std::fill_n(winners + row * pooled, pooled, uint8_t{0});
    }
  }
};

template <typename Kind>
using Map = WindowPixels<const typename Kind::Scalar>;

template <typename Kind>
void project_then_pool(const Map<Kind>& map, const Tensor& weight, const Output<Kind>& output) {
  using Scalar = typename Kind::Scalar;
  const std::vector<int64_t>& windows = output.read.windows;
  const int64_t total = windows.size(), tile = tile_size<Kind>(total), dimensions = output.dimensions;
  Tensor pixels = scratch_matrix(weight, kPixels * tile, map.shape.channels);
  Tensor projected = scratch_matrix(weight, kPixels * tile, dimensions);
  const Tensor by_channel = transposed(weight);
  const auto* values = static_cast<const Scalar*>(projected.const_data_ptr());
  const auto& kernels = row_kernels<Kind>();
  for (int64_t start = 0; start < total; start += tile) {
    const int64_t number = std::min(tile, total - start);
    gather_pixels(map, windows.data() + start, number, static_cast<Scalar*>(pixels.mutable_data_ptr()));
    multiply(first_rows(pixels, kPixels * number), by_channel, first_rows(projected, kPixels * number));
    for_chunks(number, kPixels * dimensions, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t window = windows[start + i];
        const Scalar* rows[kPixels];
        for (int pixel = 0; pixel < kPixels; ++pixel) rows[pixel] = values + (kPixels * i + pixel) * dimensions;
        kernels.select(rows, dimensions, output.vector, output.out + output.read.first_reader(window) * dimensions,
                       output.winners_of(window));
        output.copy_to_readers(window);
      }
    });
  }
}

template <typename Kind>
void pool_then_project(const Map<Kind>& map, const Tensor& weight, const Output<Kind>& output) {
  using Scalar = typename Kind::Scalar;
  const std::vector<int64_t>& windows = output.read.windows;
  const int64_t total = windows.size(), tile = tile_size<Kind>(total), dimensions = output.dimensions;
  const int64_t channels = map.shape.channels;
  Tensor pooled = scratch_matrix(weight, tile, channels);
  Tensor projected = scratch_matrix(weight, tile, dimensions);
  const Tensor by_channel = transposed(weight);
  auto* maxima = static_cast<Scalar*>(pooled.mutable_data_ptr());
  const auto* values = static_cast<const Scalar*>(projected.const_data_ptr());
  const auto& kernels = row_kernels<Kind>();
  for (int64_t start = 0; start < total; start += tile) {
    const int64_t number = std::min(tile, total - start);
    for_windows(map, windows.data() + start, number, [&](int64_t i, const Scalar* const* pixels) {
      kernels.select(pixels, channels, nullptr, maxima + i * channels, output.winners_of(windows[start + i]));
    });
    multiply(first_rows(pooled, number), by_channel, first_rows(projected, number));
    for_chunks(number, dimensions, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t window = windows[start + i];
        Scalar* row = output.out + output.read.first_reader(window) * dimensions;
        for (int64_t d = 0; d < dimensions; ++d) {
          row[d] = Kind::narrow(Kind::widen(values[i * dimensions + d]) + output.vector[d]);
        }
        output.copy_to_readers(window);
      }
    });
  }
}

void pixel_embed_forward(Tensor features, Tensor positions, Tensor weight, Tensor vector,
                         std::optional<Tensor> image_index, bool project_first, Tensor out, Tensor winners) {
  const MapShape shape = shape_of(features);
  const int32_t* places = positions.const_data_ptr<int32_t>();
  const int32_t* images = indices_or_null(image_index);
  const int64_t sequences = positions.size(0), count = positions.size(1);
  const ReadWindows read(shape, places, images, sequences, count);
  with_kind(features, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    const Map<Kind> map = {static_cast<const Scalar*>(features.const_data_ptr()), shape, strides_of(features)};
    const Output<Kind> output = {read,
                                 vector.const_data_ptr<typename Kind::Wide>(),
                                 out.size(2),
                                 winners.size(2),
                                 static_cast<Scalar*>(out.mutable_data_ptr()),
                                 winners.mutable_data_ptr<uint8_t>()};
    output.fill_without_place(shape, places, images, sequences, count);
    if (read.windows.empty()) return;
    project_first ? project_then_pool<Kind>(map, weight, output) : pool_then_project<Kind>(map, weight, output);
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("pixel_embed_forward", TORCH_BOX(&pixelbert::pixel_embed_forward));
}

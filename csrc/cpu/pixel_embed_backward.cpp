// pixel_embed on a CPU, backward: gradients of the windows that rows read are summed over their readers, each window
// once, and multiplied a tile at a time.
#include "pixel_embed.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "products.h"
#include "weight_sum.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

constexpr int64_t kSumBlock = 256;  // numbers summed at a time: four rows of them fit into the first cache

// The gradient that windows receive from the rows that read them: sums in the wide type, in the order of the rows.
template <typename Kind>
struct Received {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;

  const ReadWindows& read;
  const Scalar* grad;
  const uint8_t* winners;
  int64_t dimensions, pooled;  // numbers in a row of `grad` and of `winners`

  const uint8_t* winners_of(int64_t window) const { return winners + read.first_reader(window) * pooled; }

  // to[pixel] = what the window's projected pixels receive: each number goes to the one that won.
  void by_pixel(int64_t window, Scalar* const* to) const {
    const int64_t first = read.starts[window], last = read.starts[window + 1];
    if (first + 1 == last) {
      const int64_t from = read.rows[first] * dimensions;
      row_kernels<Kind>().scatter(grad + from, winners + from, dimensions, to);
      return;
    }
    Wide sums[kPixels][kSumBlock];
    for (int64_t begin = 0; begin < dimensions; begin += kSumBlock) {
      const int64_t size = std::min(kSumBlock, dimensions - begin);
      std::fill(&sums[0][0], &sums[0][0] + kPixels * kSumBlock, Wide{0});
      for (int64_t at = first; at < last; ++at) {
        const int64_t from = read.rows[at] * dimensions + begin;
        for (int64_t d = 0; d < size; ++d) sums[winners[from + d] & 3][d] += Kind::widen(grad[from + d]);
      }
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        for (int64_t d = 0; d < size; ++d) to[pixel][begin + d] = Kind::narrow(sums[pixel][d]);
      }
    }
  }

  // to = what the window's projected maximum receives.
  void summed(int64_t window, Scalar* to) const {
    const int64_t first = read.starts[window], last = read.starts[window + 1];
    if (first + 1 == last) {
      std::copy_n(grad + read.rows[first] * dimensions, dimensions, to);
      return;
    }
    Wide sums[kSumBlock];
    for (int64_t begin = 0; begin < dimensions; begin += kSumBlock) {
      const int64_t size = std::min(kSumBlock, dimensions - begin);
      std::fill_n(sums, kSumBlock, Wide{0});
      for (int64_t at = first; at < last; ++at) {
        const Scalar* from = grad + read.rows[at] * dimensions + begin;
        for (int64_t d = 0; d < size; ++d) sums[d] += Kind::widen(from[d]);
      }
      for (int64_t d = 0; d < size; ++d) to[begin + d] = Kind::narrow(sums[d]);
    }
  }
};

// Zero at every pixel of a dense gradient that no row reads. Of a contiguous one zero everywhere: its windows have no
// memory of their own.
template <typename Scalar>
void clear_unread(const WindowPixels<Scalar>& grad, const ReadWindows& read) {
  const MapShape& shape = grad.shape;
  const int64_t row_size = shape.width * shape.channels, rows = (shape.height + 1) / 2;
  torch::stable::parallel_for(0, shape.batch * rows, grain_for(2 * row_size), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / rows, y = unit % rows, sides = std::min<int64_t>(2, shape.height - 2 * y);
      Scalar* upper = grad.map + image * shape.height * row_size + 2 * y * row_size;
      if (!grad.rows_are_neighbours() || sides == 1 || shape.pooled_width() == 0) {
        std::fill_n(upper, sides * row_size, Scalar{0});
        continue;
      }
      const int64_t* starts = read.starts.data() + image * shape.places() + y * shape.pooled_width();
      for (int64_t x = 0; x < (shape.width + 1) / 2; ++x) {
        if (x < shape.pooled_width() && starts[x] < starts[x + 1]) continue;
        const int64_t size = std::min<int64_t>(2, shape.width - 2 * x) * shape.channels;
        for (int64_t side = 0; side < 2; ++side) {
          std::fill_n(upper + side * row_size + 2 * x * shape.channels, size, Scalar{0});
        }
      }
    }
  });
}

template <typename Kind>
struct Backward {
  using Scalar = typename Kind::Scalar;

  const Received<Kind>& received;
  WindowPixels<const Scalar> map;
  WindowPixels<Scalar> grad;
  bool project_first;

  // Windows have one row each where the maximum is projected, and one for each pixel where it is taken afterwards.
  int64_t rows_each() const { return project_first ? kPixels : 1; }

  void receive(const int64_t* windows, int64_t number, Scalar* to) const {
    const int64_t dimensions = received.dimensions;
    for_chunks(number, rows_each() * dimensions, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Scalar* row = to + rows_each() * i * dimensions;
        if (project_first) {
          Scalar* const rows[kPixels] = {row, row + dimensions, row + 2 * dimensions, row + 3 * dimensions};
          received.by_pixel(windows[i], rows);
        } else {
          received.summed(windows[i], row);
        }
      }
    });
  }

  // What was multiplied in the forward.
  void gather(const int64_t* windows, int64_t number, Scalar* to) const {
    if (project_first) return gather_pixels(map, windows, number, to);
    const int64_t channels = map.shape.channels;
    for_windows(map, windows, number, [&](int64_t i, const Scalar* const* pixels) {
      row_kernels<Kind>().select(pixels, channels, nullptr, to + i * channels, nullptr);
    });
  }

  // Writes the gradient of the pixels of `windows`.
  void scatter(const int64_t* windows, int64_t number, const Scalar* from) const {
    const int64_t channels = map.shape.channels;
    for_chunks(number, kPixels * channels, [&](int64_t begin, int64_t end) {
      if (project_first) {
        grad.write(windows + begin, end - begin, from + kPixels * begin * channels);
        return;
      }
      std::vector<Scalar> copied(grad.rows_are_neighbours() ? 0 : kPixels * kWindowChunk * channels);
      for (int64_t i = begin; i < end; ++i) {
        Scalar* pixels[kPixels];
        if (grad.rows_are_neighbours()) {
          grad.point(windows[i], pixels);
        } else {
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            pixels[pixel] = copied.data() + (kPixels * (i - begin) + pixel) * channels;
          }
        }
        row_kernels<Kind>().scatter(from + i * channels, received.winners_of(windows[i]), channels, pixels);
      }
      if (!grad.rows_are_neighbours()) grad.write(windows + begin, end - begin, copied.data());
    });
  }

  void run(const Tensor& weight, std::optional<Tensor>& grad_weight) const {
    const std::vector<int64_t>& windows = received.read.windows;
    const int64_t total = windows.size(), tile = tile_size<Kind>(total), channels = map.shape.channels;
    if (grad.map) clear_unread(grad, received.read);
    std::optional<WeightSum<Kind>> sum;
    if (grad_weight) sum.emplace(*grad_weight, rows_each() * tile);
    Tensor projected = scratch_matrix(weight, rows_each() * tile, received.dimensions);
    Tensor pixels = scratch_matrix(weight, rows_each() * tile, channels);
    auto* pixel_values = static_cast<Scalar*>(pixels.mutable_data_ptr());
    for (int64_t start = 0; start < total; start += tile) {
      const int64_t number = std::min(tile, total - start), rows = rows_each() * number;
      receive(windows.data() + start, number, static_cast<Scalar*>(projected.mutable_data_ptr()));
      if (sum) {
        gather(windows.data() + start, number, pixel_values);
        sum->add(first_rows(projected, rows), first_rows(pixels, rows));
      }
      if (grad.map) {
        multiply(first_rows(projected, rows), weight, first_rows(pixels, rows));
        scatter(windows.data() + start, number, pixel_values);
      }
    }
    if (sum) sum->finish();
  }
};

void pixel_embed_backward(Tensor grad, Tensor winners, Tensor features, Tensor positions, Tensor weight,
                          std::optional<Tensor> image_index, bool project_first, std::optional<Tensor> grad_features,
                          std::optional<Tensor> grad_weight) {
  const MapShape shape = shape_of(features);
  const ReadWindows read(shape, positions.const_data_ptr<int32_t>(), indices_or_null(image_index), positions.size(0),
                         positions.size(1));
  with_kind(features, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    const Received<Kind> received = {read, static_cast<const Scalar*>(grad.const_data_ptr()),
                                     winners.const_data_ptr<uint8_t>(), grad.size(2), winners.size(2)};
    WindowPixels<Scalar> dense = {nullptr, shape, {}};
    if (grad_features.has_value() && grad_features->numel() > 0) {
      dense.map = static_cast<Scalar*>(grad_features->mutable_data_ptr());
      dense.strides = strides_of(*grad_features);
      prefer_large_pages(dense.map, grad_features->numel() * sizeof(Scalar));
    }
    const Backward<Kind> backward = {
        received,
        {static_cast<const Scalar*>(features.const_data_ptr()), shape, strides_of(features)},
        dense,
        project_first};
    backward.run(weight, grad_weight);
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("pixel_embed_backward", TORCH_BOX(&pixelbert::pixel_embed_backward));
}

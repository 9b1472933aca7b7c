// pool_gather on a CPU, forward and backward. Nothing the size of the pooled map is stored; the gradient is written in
// one pass, the readers of each window having been listed beforehand, so that no two threads meet.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "large_pages.h"
#include "rows.h"
#include "tensors.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

constexpr int64_t kChannelBlock = 16;  // one cache line of float32, where channels are not neighbours
constexpr int64_t kSumBlock = 256;     // channels summed at a time: four pixels of them fit into the first cache

template <typename Kind>
struct Forward {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;

  const Scalar* features;
  MapShape shape;
  MapStrides strides;
  const int32_t* positions;
  const int32_t* image_index;
  const Wide* embedding;
  int64_t sequences, count;
  Scalar* out;
  uint8_t* winners;  // or null

  RowKind kind(int64_t row, int64_t* image) const {
    *image = image_index ? image_index[row / count] : row / count;
    return row_kind(shape, *image, positions[row]);
  }

  void fill(RowKind kind, int64_t row, int64_t begin, int64_t end) const {
    const Wide value = kind == RowKind::kNone ? Wide{0} : std::numeric_limits<Wide>::quiet_NaN();
    std::fill(out + row * shape.channels + begin, out + row * shape.channels + end, Kind::narrow(value));
    if (winners) std::fill(winners_of(row) + begin, winners_of(row) + end, uint8_t{0});
  }

  uint8_t* winners_of(int64_t row) const { return winners ? winners + row * shape.channels : nullptr; }

  void rows_of_channels() const {
    const auto& kernels = row_kernels<Kind>();
    const int64_t channels = shape.channels;
    torch::stable::parallel_for(0, sequences * count, grain_for(channels), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t image;
        const RowKind what = kind(row, &image);
        if (what != RowKind::kPlace) {
          fill(what, row, 0, channels);
          continue;
        }
        const Scalar* first = features + image * strides.batch + window_offset(shape, strides, positions[row]);
        const Scalar* pixels[kPixels];
        for (int pixel = 0; pixel < kPixels; ++pixel) pixels[pixel] = first + pixel_offset(strides, pixel);
        kernels.select(pixels, channels, embedding, out + row * channels, winners_of(row));
      }
    });
  }

  // Any strides: a block of channels of one sequence at a time, so that lines of the output stay in cache while one
  // channel after another is read.
  void blocks_of_channels() const {
    const int64_t channels = shape.channels, blocks = (channels + kChannelBlock - 1) / kChannelBlock;
    torch::stable::parallel_for(
        0, sequences * blocks, grain_for(count * kChannelBlock), [&](int64_t begin, int64_t end) {
          std::vector<int64_t> rows, offsets;
          for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t first = unit % blocks * kChannelBlock;
            const int64_t last = std::min(first + kChannelBlock, channels);
            rows.clear(), offsets.clear();
            for (int64_t row = unit / blocks * count; row < (unit / blocks + 1) * count; ++row) {
              int64_t image;
              const RowKind what = kind(row, &image);
              if (what == RowKind::kPlace) {
                rows.push_back(row);
                offsets.push_back(image * strides.batch + window_offset(shape, strides, positions[row]));
              } else {
                fill(what, row, first, last);
              }
            }
            for (int64_t c = first; c < last; ++c) {
              const Scalar* channel = features + c * strides.channel;
              for (size_t i = 0; i < rows.size(); ++i) window(channel + offsets[i], rows[i] * channels + c, c);
            }
          }
        });
  }

  // Without NaN the winner is the first pixel equal to the maximum, which takes no jump that data decide.
  void window(const Scalar* origin, int64_t at, int64_t c) const {
    const Scalar values[kPixels] = {origin[0], origin[strides.column], origin[strides.row],
                                    origin[strides.row + strides.column]};
    typename Kind::Key keys[kPixels];
    bool nan = false;
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      keys[pixel] = Kind::key(values[pixel]);
      nan |= Kind::is_nan(keys[pixel]);
    }
    const auto upper = keys[0] > keys[1] ? keys[0] : keys[1];
    const auto lower = keys[2] > keys[3] ? keys[2] : keys[3];
    const auto most = upper > lower ? upper : lower;
    const int equal = (keys[0] == most) | (keys[1] == most) << 1 | (keys[2] == most) << 2 | 8;
    int winner = __builtin_ctz(equal);
    if (nan) {
      for (int pixel = 0; pixel < kPixels; ++pixel) winner = Kind::is_nan(keys[pixel]) ? pixel : winner;
    }
    out[at] = embedding ? Kind::narrow(Kind::widen(values[winner]) + embedding[c]) : values[winner];
    if (winners) winners[at] = static_cast<uint8_t>(winner);
  }
};

// Rows of positions by the window they read: those of window i are rows[starts[i]] .. rows[starts[i + 1] - 1],
// ascending.
struct Readers {
  std::vector<int64_t> starts, rows;

  Readers(const MapShape& shape, const int32_t* positions, const int32_t* image_index, int64_t total,
          int64_t count)
      : starts(shape.batch * shape.places() + 1, 0) {
    const auto window = [&](int64_t row) -> int64_t {
      const int64_t image = image_index ? image_index[row / count] : row / count;
      if (row_kind(shape, image, positions[row]) != RowKind::kPlace) return -1;
      return image * shape.places() + positions[row];
    };
    for (int64_t row = 0; row < total; ++row) {
      if (const int64_t at = window(row); at >= 0) ++starts[at + 1];
    }
    for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    rows.resize(starts.back());
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t row = 0; row < total; ++row) {
      if (const int64_t at = window(row); at >= 0) rows[next[at]++] = row;
    }
  }
};

template <typename Kind>
struct Backward {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;

  const Scalar* grad;
  const uint8_t* winners;
  const Readers& readers;
  MapShape shape;
  Scalar* out;

  // channels_last: one pooled row of one image at a time; an odd last row is one more.
  void rows_of_channels() const {
    const auto& kernels = row_kernels<Kind>();
    const int64_t channels = shape.channels, row_size = shape.width * channels;
    const MapStrides strides = {shape.height * row_size, 1, row_size, channels};
    const int64_t rows = (shape.height + 1) / 2;
    torch::stable::parallel_for(0, shape.batch * rows, grain_for(2 * row_size), [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t image = unit / rows, y = unit % rows;
        Scalar* upper = out + image * strides.batch + 2 * y * row_size;
        if (y == shape.pooled_height()) {
          std::fill(upper, upper + row_size, Scalar{0});
          continue;
        }
        for (int64_t x = 0; x < shape.pooled_width(); ++x) {
          const int64_t at = image * shape.places() + y * shape.pooled_width() + x;
          Scalar* pixels[kPixels];
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            pixels[pixel] = upper + 2 * x * channels + pixel_offset(strides, pixel);
          }
          const int64_t first = readers.starts[at], last = readers.starts[at + 1];
          if (first == last) {
            std::fill(pixels[0], pixels[0] + 2 * channels, Scalar{0});
            std::fill(pixels[2], pixels[2] + 2 * channels, Scalar{0});
          } else if (first + 1 == last) {
            const int64_t from = readers.rows[first] * channels;
            kernels.scatter(grad + from, winners + from, channels, pixels);
          } else {
            sum(first, last, pixels);
          }
        }
        if (shape.width % 2) {
          std::fill(upper + row_size - channels, upper + row_size, Scalar{0});
          std::fill(upper + 2 * row_size - channels, upper + 2 * row_size, Scalar{0});
        }
      }
    });
  }

  // Several readers of one window: their gradients add up in the wide type, in the order of the rows.
  void sum(int64_t first, int64_t last, Scalar* const* pixels) const {
    Wide sums[kPixels][kSumBlock];
    for (int64_t begin = 0; begin < shape.channels; begin += kSumBlock) {
      const int64_t size = std::min(kSumBlock, shape.channels - begin);
      std::fill(&sums[0][0], &sums[0][0] + kPixels * kSumBlock, Wide{0});
      for (int64_t reader = first; reader < last; ++reader) {
        const int64_t from = readers.rows[reader] * shape.channels + begin;
        for (int64_t c = 0; c < size; ++c) sums[winners[from + c] & 3][c] += Kind::widen(grad[from + c]);
      }
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        for (int64_t c = 0; c < size; ++c) pixels[pixel][begin + c] = Kind::narrow(sums[pixel][c]);
      }
    }
  }

  // Contiguous: a block of planes of one image at a time, each built while it is in the first cache.
  void blocks_of_planes() const {
    const int64_t channels = shape.channels, plane_size = shape.height * shape.width;
    const int64_t blocks = (channels + kChannelBlock - 1) / kChannelBlock;
    torch::stable::parallel_for(
        0, shape.batch * blocks, grain_for(plane_size * kChannelBlock), [&](int64_t begin, int64_t end) {
          for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t image = unit / blocks, first = unit % blocks * kChannelBlock;
            const int64_t last = std::min(first + kChannelBlock, channels);
            for (int64_t c = first; c < last; ++c) plane(image, c, out + (image * channels + c) * plane_size);
          }
        });
  }

  void plane(int64_t image, int64_t c, Scalar* to) const {
    const MapStrides strides = {0, 0, shape.width, 1};
    std::fill(to, to + shape.height * shape.width, Scalar{0});
    for (int64_t place = 0; place < shape.places(); ++place) {
      const int64_t at = image * shape.places() + place;
      const int64_t first = readers.starts[at], last = readers.starts[at + 1];
      if (first == last) continue;
      Wide sums[kPixels] = {};
      for (int64_t reader = first; reader < last; ++reader) {
        const int64_t from = readers.rows[reader] * shape.channels + c;
        sums[winners[from] & 3] += Kind::widen(grad[from]);
      }
      Scalar* window = to + window_offset(shape, strides, place);
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        window[pixel_offset(strides, pixel)] = Kind::narrow(sums[pixel]);
      }
    }
  }
};

void pool_gather_forward(Tensor features, Tensor positions, std::optional<Tensor> embedding,
                         std::optional<Tensor> image_index, Tensor out, std::optional<Tensor> winners) {
  with_kind(features, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    using Wide = typename Kind::Wide;
    const Forward<Kind> forward = {static_cast<const Scalar*>(features.const_data_ptr()),
                                   shape_of(features),
                                   strides_of(features),
                                   positions.const_data_ptr<int32_t>(),
                                   indices_or_null(image_index),
                                   embedding.has_value() ? embedding->const_data_ptr<Wide>() : nullptr,
                                   positions.size(0),
                                   positions.size(1),
                                   static_cast<Scalar*>(out.mutable_data_ptr()),
                                   winners.has_value() ? winners->mutable_data_ptr<uint8_t>() : nullptr};
    if (out.numel() == 0) return;
    forward.strides.channel == 1 ? forward.rows_of_channels() : forward.blocks_of_channels();
  });
}

void pool_gather_backward(Tensor grad, Tensor winners, Tensor positions, std::optional<Tensor> image_index,
                          Tensor grad_features) {
  if (grad_features.numel() == 0) return;
  const MapShape shape = shape_of(grad_features);
  const Readers readers(shape, positions.const_data_ptr<int32_t>(), indices_or_null(image_index),
                        positions.numel(), positions.size(1));
  with_kind(grad, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    prefer_large_pages(grad_features.mutable_data_ptr(), grad_features.numel() * sizeof(Scalar));
    const Backward<Kind> backward = {static_cast<const Scalar*>(grad.const_data_ptr()),
                                     winners.const_data_ptr<uint8_t>(), readers, shape,
                                     static_cast<Scalar*>(grad_features.mutable_data_ptr())};
    grad_features.is_contiguous() ? backward.blocks_of_planes() : backward.rows_of_channels();
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("pool_gather_forward", TORCH_BOX(&pixelbert::pool_gather_forward));
  library.impl("pool_gather_backward", TORCH_BOX(&pixelbert::pool_gather_backward));
}

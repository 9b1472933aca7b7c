// The gradient of a vector that was added to every row with a place: the sum of those rows, in float64.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "tensors.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

constexpr int64_t kColumns = 128;  // summed by one thread at a time: several cache lines of each row

void sum_rows(Tensor rows, Tensor positions, std::optional<Tensor> image_index, int64_t batch, int64_t places,
              Tensor out) {
  const int64_t count = positions.size(1), channels = out.numel(), total = positions.numel();
  const int32_t* place = positions.const_data_ptr<int32_t>();
  const int32_t* images = indices_or_null(image_index);
  const MapShape shape = {batch, channels, 2, 2 * places};
  std::vector<int64_t> read;
  for (int64_t row = 0; row < total; ++row) {
    const int64_t image = images ? images[row / count] : row / count;
    if (row_kind(shape, image, place[row]) == RowKind::kPlace) read.push_back(row);
  }
  double* sums = out.mutable_data_ptr<double>();
  const int64_t blocks = (channels + kColumns - 1) / kColumns;
  with_kind(rows, [&](auto kind) {
    using Kind = decltype(kind);
    const auto* values = static_cast<const typename Kind::Scalar*>(rows.const_data_ptr());
    torch::stable::parallel_for(0, blocks, grain_for(total * kColumns), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kColumns, last = std::min(end * kColumns, channels);
      std::fill(sums + first, sums + last, 0.0);
      for (const int64_t row : read) {
        for (int64_t c = first; c < last; ++c) sums[c] += Kind::widen(values[row * channels + c]);
      }
    });
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("sum_rows", TORCH_BOX(&pixelbert::sum_rows));
}

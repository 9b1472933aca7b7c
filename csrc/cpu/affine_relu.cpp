// What follows a convolution whose norm is frozen: scale and shift of each channel, the residual sum and ReLU, in one
// pass over the map and in place; its backward in one pass as well. All maps are channels_last without gaps.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <type_traits>

#include "large_pages.h"
#include "rows.h"
#include "tensors.h"

namespace pixelbert {
namespace {

// One row: the channels of one pixel. `residual`, `residual_scale` and the gradients may be null.
template <typename Kind>
struct AffineKernels {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  void (*forward)(Scalar* row, const Wide* scale, const Wide* shift, const Scalar* residual, const Wide* residual_scale,
                  int64_t channels);
  void (*backward)(const Scalar* grad, const Scalar* out, const Wide* scale, const Wide* residual_scale,
                   int64_t channels, Scalar* grad_values, Scalar* grad_residual);
};

}  // namespace
}  // namespace pixelbert

#define PIXELBERT_OF_LEVEL "affine_relu_of_level.h"
#include "levels.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

template <typename Kind>
const AffineKernels<Kind>& affine_kernels() {
#if defined(__x86_64__)
  const int64_t level = level_in_use();
  if (level == 2) return Avx512<Kind>::kernels;
  if (level == 1) return Avx2<Kind>::kernels;
#endif
  return Portable<Kind>::kernels;
}

template <typename Scalar>
const Scalar* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? static_cast<const Scalar*>(tensor->const_data_ptr()) : nullptr;
}

template <typename Scalar>
Scalar* new_data_or_null(std::optional<Tensor>& tensor) {
  if (!tensor.has_value()) return nullptr;
  void* memory = tensor->mutable_data_ptr();
  prefer_large_pages(memory, tensor->numel() * sizeof(Scalar));
  return static_cast<Scalar*>(memory);
}

template <typename Scalar>
Scalar* row_or_null(Scalar* map, int64_t offset) {
  return map ? map + offset : nullptr;
}

void affine_relu(Tensor values, Tensor scale, Tensor shift, std::optional<Tensor> residual,
                 std::optional<Tensor> residual_scale) {
  const int64_t channels = values.size(1), rows = channels ? values.numel() / channels : 0;
  with_kind(values, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    using Wide = typename Kind::Wide;
    auto* map = static_cast<Scalar*>(values.mutable_data_ptr());
    const auto* scales = static_cast<const Wide*>(scale.const_data_ptr());
    const auto* shifts = static_cast<const Wide*>(shift.const_data_ptr());
    const auto* other = data_or_null<Scalar>(residual);
    const auto* other_scales = data_or_null<Wide>(residual_scale);
    const auto& kernels = affine_kernels<Kind>();
    torch::stable::parallel_for(0, rows, grain_for(channels), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * channels;
        kernels.forward(map + at, scales, shifts, row_or_null(other, at), other_scales, channels);
      }
    });
  });
}

void affine_relu_backward(Tensor grad, Tensor out, Tensor scale, std::optional<Tensor> residual_scale,
                          std::optional<Tensor> grad_values, std::optional<Tensor> grad_residual) {
  const int64_t channels = out.size(1), rows = channels ? out.numel() / channels : 0;
  with_kind(out, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    using Wide = typename Kind::Wide;
    const auto* incoming = static_cast<const Scalar*>(grad.const_data_ptr());
    const auto* map = static_cast<const Scalar*>(out.const_data_ptr());
    const auto* scales = static_cast<const Wide*>(scale.const_data_ptr());
    const auto* other_scales = data_or_null<Wide>(residual_scale);
    auto* values = new_data_or_null<Scalar>(grad_values);
    auto* other = new_data_or_null<Scalar>(grad_residual);
    const auto& kernels = affine_kernels<Kind>();
    torch::stable::parallel_for(0, rows, grain_for(channels), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row * channels;
        kernels.backward(incoming + at, map + at, scales, other_scales, channels, row_or_null(values, at),
                         row_or_null(other, at));
      }
    });
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("affine_relu", TORCH_BOX(&pixelbert::affine_relu));
  library.impl("affine_relu_backward", TORCH_BOX(&pixelbert::affine_relu_backward));
}

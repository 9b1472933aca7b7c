#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "../tensors.h"
#include "launch.h"
#include "pool_gather_backward.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

template <typename Work>
__global__ void __launch_bounds__(Work::kThreads) pool_gather_backward_kernel(const __grid_constant__ Work work) {
  __shared__ typename Work::Shared shared;
  work.run(Block{static_cast<int64_t>(blockIdx.x)}, shared);
}

void pool_gather_backward(Tensor grad, Tensor winners, Tensor positions, std::optional<Tensor> image_index,
                          Tensor grad_features) {
  if (grad_features.numel() == 0) return;
  const Launcher launcher("pool_gather backward", grad_features);
  const MapShape shape = shape_of(grad_features);
  const int64_t windows = shape.batch * shape.covering_windows();
  const Tensor lists = torch::stable::new_empty(positions, {windows + positions.numel()},
                                                torch::headeronly::ScalarType::Long);
  int64_t* first = lists.mutable_data_ptr<int64_t>();
  const ListReaders readers(shape, positions.const_data_ptr<int32_t>(), indices_or_null(image_index),
                            positions.size(0), positions.size(1), first, first + windows);
  with_kind(grad, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    const Scatter<Kind> scatter(static_cast<const Scalar*>(grad.const_data_ptr()), winners.const_data_ptr<uint8_t>(),
                                readers, static_cast<Scalar*>(grad_features.mutable_data_ptr()));
    launch_scatter(readers, scatter, !grad_features.is_contiguous(), [&](const auto& work) {
      launcher.start(pool_gather_backward_kernel<std::decay_t<decltype(work)>>, work);
    });
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CUDA, library) {
  library.impl("pool_gather_backward", TORCH_BOX(&pixelbert::pool_gather_backward));
}

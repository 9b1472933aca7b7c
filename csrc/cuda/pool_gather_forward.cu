#include <torch/csrc/stable/library.h>

#include <optional>

#include "../tensors.h"
#include "launch.h"
#include "pool_gather_forward.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

template <typename Work>
__global__ void __launch_bounds__(Work::kThreads) pool_gather_forward_kernel(const __grid_constant__ Work work) {
  __shared__ typename Work::Shared shared;
  work.run(Block{static_cast<int64_t>(blockIdx.x)}, shared);
}

void pool_gather_forward(Tensor features, Tensor positions, std::optional<Tensor> embedding,
                         std::optional<Tensor> image_index, Tensor out, std::optional<Tensor> winners) {
  if (out.numel() == 0) return;
  const Launcher launcher("pool_gather", features);
  with_kind(features, [&](auto kind) {
    using Kind = decltype(kind);
    using Scalar = typename Kind::Scalar;
    const Gather<Kind> gather = {
        static_cast<const Scalar*>(features.const_data_ptr()),
        shape_of(features),
        strides_of(features),
        positions.const_data_ptr<int32_t>(),
        indices_or_null(image_index),
        embedding.has_value() ? embedding->const_data_ptr<typename Kind::Wide>() : nullptr,
        positions.numel(),
        Divisor(positions.size(1)),
        Divisor(features.size(3) / 2),
        static_cast<Scalar*>(out.mutable_data_ptr()),
        winners.has_value() ? winners->mutable_data_ptr<uint8_t>() : nullptr};
    launch_gather(gather, [&](const auto& work) {
      launcher.start(pool_gather_forward_kernel<std::decay_t<decltype(work)>>, work);
    });
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CUDA, library) {
  library.impl("pool_gather_forward", TORCH_BOX(&pixelbert::pool_gather_forward));
}

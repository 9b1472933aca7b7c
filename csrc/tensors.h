// What kernels read off their tensors.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>

#include "kinds.h"
#include "windows.h"

namespace pixelbert {

inline MapShape shape_of(const torch::stable::Tensor& map) {
  return {map.size(0), map.size(1), map.size(2), map.size(3)};
}

inline MapStrides strides_of(const torch::stable::Tensor& map) {
  return {map.stride(0), map.stride(1), map.stride(2), map.stride(3)};
}

inline const int32_t* indices_or_null(const std::optional<torch::stable::Tensor>& index) {
  return index.has_value() ? index->const_data_ptr<int32_t>() : nullptr;
}

// Calls `run` with the kind of `tensor`'s elements.
template <typename Run>
void with_kind(const torch::stable::Tensor& tensor, const Run& run) {
  switch (tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Float: return run(Float32{});
    case torch::headeronly::ScalarType::Double: return run(Float64{});
    case torch::headeronly::ScalarType::BFloat16: return run(BFloat16{});
    case torch::headeronly::ScalarType::Half: return run(Float16{});
    default: STD_TORCH_CHECK(false, "a map or its gradient must be float32, bfloat16, float16 or float64");
  }
}

}  // namespace pixelbert

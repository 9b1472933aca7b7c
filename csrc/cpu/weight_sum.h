// The gradient of a weight as a sum of products, one for each tile of windows.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <type_traits>

#include "../kinds.h"
#include "products.h"
#include "tensors.h"

namespace pixelbert {

// Adds up in float32 for 16-bit types. Products of float16 are float32 as well: a tile's could leave float16's range
// where the sum does not, and few processors multiply float16 faster. Those of bfloat16 are rounded to it once a
// tile, which has the error of rounding the sum.
template <typename Kind>
class __attribute__((visibility("hidden"))) WeightSum {  // as the tensors it holds
 public:
  // For products of at most `rows` rows.
  WeightSum(const torch::stable::Tensor& grad_weight, int64_t rows) : grad_weight_(grad_weight), sum_(grad_weight) {
    if constexpr (!std::is_same_v<Kind, Product>) {
      const int64_t dimensions = grad_weight.size(0), channels = grad_weight.size(1);
      sum_ = in_float32({dimensions, channels});
      left_ = in_float32({rows, dimensions});
      right_ = in_float32({rows, channels});
    }
  }

  // Adds transposed(left) @ right.
  void add(torch::stable::Tensor left, torch::stable::Tensor right) {
    if constexpr (!std::is_same_v<Kind, Product>) left = widened(left, left_), right = widened(right, right_);
    ++added_;
    if (added_ == 1) {
      multiply(transposed(left), right, std::is_same_v<Kind, Product> ? grad_weight_ : sum_);
      return;
    }
    if (added_ == 2) make_room();
    multiply(transposed(left), right, product_);
    auto* sum = static_cast<typename Kind::Wide*>(sum_.mutable_data_ptr());
    const auto* product = static_cast<const typename Product::Scalar*>(product_.const_data_ptr());
    torch::stable::parallel_for(0, sum_.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sum[i] += Product::widen(product[i]);
    });
  }

  // Writes the gradient.
  void finish() {
    if (added_ == 0) {
      torch::stable::zero_(grad_weight_);
    } else if (sum_.const_data_ptr() != grad_weight_.const_data_ptr()) {
      torch::stable::copy_(grad_weight_, sum_);
    }
  }

 private:
  using Product = std::conditional_t<std::is_same_v<Kind, Float16>, Float32, Kind>;

  // Room for the sum of products, of which the first has been written, and for another product.
  void make_room() {
    if constexpr (std::is_same_v<typename Product::Scalar, typename Kind::Wide>) {
      product_ = torch::stable::empty_like(sum_);
    } else {
      product_ = grad_weight_;
      sum_ = in_float32({grad_weight_.size(0), grad_weight_.size(1)});
      torch::stable::copy_(sum_, grad_weight_);
    }
  }

  torch::stable::Tensor in_float32(torch::headeronly::IntHeaderOnlyArrayRef size) const {
    return torch::stable::new_empty(grad_weight_, size, torch::headeronly::ScalarType::Float);
  }

  static torch::stable::Tensor widened(const torch::stable::Tensor& from, torch::stable::Tensor& into) {
    torch::stable::Tensor wide = first_rows(into, from.size(0));
    return torch::stable::copy_(wide, from);
  }

  torch::stable::Tensor grad_weight_, sum_, product_, left_, right_;
  int64_t added_ = 0;
};

}  // namespace pixelbert

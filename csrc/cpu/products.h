// Matrix products of PyTorch, called through its dispatcher.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>

namespace pixelbert {

// out = left @ right, in their dtype. Only from a thread that holds the op's dispatch state: not in parallel_for.
inline void multiply(const torch::stable::Tensor& left, const torch::stable::Tensor& right,
                     const torch::stable::Tensor& out) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(left), torch::stable::detail::from(right),
                                    torch::stable::detail::from(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  (void)torch::stable::detail::to<torch::stable::Tensor>(stack[0]);  // frees the handle that came back
}

inline torch::stable::Tensor first_rows(torch::stable::Tensor& matrix, int64_t number) {
  return torch::stable::narrow(matrix, 0, 0, number);
}

inline torch::stable::Tensor transposed(const torch::stable::Tensor& matrix) {
  return torch::stable::transpose(matrix, 0, 1);
}

}  // namespace pixelbert

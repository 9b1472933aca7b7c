// Starting kernels on the caller's device and stream.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <limits>

#include "block.h"

namespace pixelbert {

// For as long as it lives, a tensor's device is the current one.
class Launcher {
 public:
  Launcher(const char* op, const torch::stable::Tensor& tensor)
      : op_(op), device_(tensor.get_device_index()), guard_(device_) {
    // This library has a CUDA runtime of its own, which must be on the device that torch's has just been set to.
    int current = -1;
    if (cudaGetDevice(&current) != cudaSuccess || current != device_) check(cudaSetDevice(device_));
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // Starts `kernel`, an instance of a __global__ template, with the work it takes.
  template <typename Work>
  void start(void (*kernel)(Work), const Work& work) const {
    const int64_t blocks = work.blocks();
    if (blocks == 0) return;
    STD_TORCH_CHECK(blocks <= std::numeric_limits<int32_t>::max(), op_, ": ", blocks,
                    " blocks are more than a grid on a GPU can have; call it with fewer rows at a time");
    kernel<<<static_cast<unsigned>(blocks), Work::kThreads, 0, stream_>>>(work);
    check(cudaGetLastError());
  }

 private:
  void check(cudaError_t error) const {
    STD_TORCH_CHECK(error == cudaSuccess, op_, ": its kernel did not start on cuda:", device_, ": ",
                    cudaGetErrorString(error));
  }

  const char* op_;
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace pixelbert

#include "sample_positions.h"

#include <torch/csrc/stable/library.h>

#include "launch.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

__global__ void __launch_bounds__(SamplePositions::kThreads)
    sample_positions_kernel(const __grid_constant__ SamplePositions work) {
  __shared__ SamplePositions::Shared shared;
  work.run(Block{static_cast<int64_t>(blockIdx.x)}, shared);
}

void sample_positions(Tensor valid_grid, Tensor seed, Tensor keys, int64_t h, int64_t w, Tensor out) {
  if (out.numel() == 0) return;
  const SamplePositions work = {valid_grid.const_data_ptr<int32_t>(),
                                seed.const_data_ptr<int64_t>(),
                                keys.const_data_ptr<int64_t>(),
                                out.size(0),
                                h,
                                w,
                                out.size(1),
                                out.mutable_data_ptr<int32_t>()};
  Launcher("sample_positions", out).start(sample_positions_kernel, work);
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CUDA, library) {
  library.impl("sample_positions", TORCH_BOX(&pixelbert::sample_positions));
}

// Why kernels of this library cannot run on `device`, or null: the driver may be too old, or the GPU not one they were
// built for. Called by pixelbert_fast/ops/cuda_backend.py.
extern "C" __attribute__((visibility("default"))) const char* pixelbert_fast_cuda_why_not(int device) {
  int current = -1;
  cudaError_t error = cudaGetDevice(&current);
  if (error == cudaSuccess && current != device) error = cudaSetDevice(device);
  cudaFuncAttributes attributes;
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, pixelbert::sample_positions_kernel);
  if (current >= 0 && current != device) cudaSetDevice(current);
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();
  return cudaGetErrorString(error);
}

// One block of a kernel's threads, as a GPU runs it and, one thread after the other, as a CPU does.
//
// A kernel is a struct with its arguments and
//   kThreads     threads of a block;
//   Shared       the block's shared memory;
//   blocks()     the size of the grid;
//   run(block, shared)  what a block does: steps of `each_thread`, with `barrier()` between steps that share memory.
#pragma once

#include <cstdint>

#include "../host_device.h"

namespace pixelbert {

struct Block {
  int64_t index;

  template <int kThreads, typename Step>
  PIXELBERT_HOST_DEVICE void each_thread(const Step& step) const {
#if defined(__CUDA_ARCH__)
    step(static_cast<int>(threadIdx.x));
#else
    for (int thread = 0; thread < kThreads; ++thread) step(thread);
#endif
  }

  PIXELBERT_HOST_DEVICE void barrier() const {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }
};

struct NothingShared {};

}  // namespace pixelbert

#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define PIXELBERT_HOST_DEVICE __host__ __device__ inline
#else
#define PIXELBERT_HOST_DEVICE inline
#endif

// Before a loop whose array must stay in registers: an index known to the compiler.
#if defined(__CUDA_ARCH__)
#define PIXELBERT_UNROLL _Pragma("unroll")
#else
#define PIXELBERT_UNROLL
#endif

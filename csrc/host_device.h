#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define PIXELBERT_HOST_DEVICE __host__ __device__ inline
#else
#define PIXELBERT_HOST_DEVICE inline
#endif

// Before a loop whose array must stay in registers: an index known to the compiler. And before a loop that must not
// become many copies of its body.
#if defined(__CUDA_ARCH__)
#define PIXELBERT_UNROLL _Pragma("unroll")
#define PIXELBERT_KEEP_LOOP _Pragma("unroll 1")
#else
#define PIXELBERT_UNROLL
#define PIXELBERT_KEEP_LOOP
#endif

#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define PIXELBERT_HOST_DEVICE __host__ __device__ inline
#else
#define PIXELBERT_HOST_DEVICE inline
#endif

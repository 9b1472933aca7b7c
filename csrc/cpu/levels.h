// Includes PIXELBERT_OF_LEVEL, a file of loops, once for each instruction set that can be chosen at run time, after
// naming the set (PIXELBERT_LEVEL), how functions are compiled for it (PIXELBERT_TARGET) and the width of its vectors
// (PIXELBERT_VECTOR_BYTES).
//
// Vectors are written in the compilers' own vector types. Each instruction set needs its own copy of the source: a
// function compiled for no set in particular has its vectors taken apart before it could be inlined into one.
#define PIXELBERT_INLINE PIXELBERT_TARGET static inline __attribute__((always_inline))

#define PIXELBERT_LEVEL Portable
#define PIXELBERT_TARGET
#define PIXELBERT_VECTOR_BYTES 16
#include PIXELBERT_OF_LEVEL
#undef PIXELBERT_LEVEL
#undef PIXELBERT_TARGET
#undef PIXELBERT_VECTOR_BYTES

#if defined(__x86_64__)
#define PIXELBERT_LEVEL Avx2
#define PIXELBERT_TARGET __attribute__((target("avx2")))
#define PIXELBERT_VECTOR_BYTES 32
#include PIXELBERT_OF_LEVEL
#undef PIXELBERT_LEVEL
#undef PIXELBERT_TARGET
#undef PIXELBERT_VECTOR_BYTES

#define PIXELBERT_LEVEL Avx512
#define PIXELBERT_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define PIXELBERT_VECTOR_BYTES 64
#include PIXELBERT_OF_LEVEL
#undef PIXELBERT_LEVEL
#undef PIXELBERT_TARGET
#undef PIXELBERT_VECTOR_BYTES
#endif

#undef PIXELBERT_INLINE
#undef PIXELBERT_OF_LEVEL

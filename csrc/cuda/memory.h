// Accesses to a GPU's memory, as wide as the vector they move. Kernels reach memory through these alone, so that the
// same kernels, run by a CPU, can have every access checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../host_device.h"

namespace pixelbert {

constexpr int kVectorBytes = 16;  // the widest access of one thread

template <typename Element, int kWidth>
struct alignas(sizeof(Element) * kWidth) Vector {
  Element at[kWidth];
};

// Whether `address` may be accessed by `bytes` at a time.
inline bool is_aligned(const void* address, size_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

#if defined(PIXELBERT_CHECKED_MEMORY)
// Defined by who runs kernels on a CPU; throws at an access that a GPU would not survive.
void check_access(const void* address, size_t bytes, bool writes);
#else
inline void check_access(const void*, size_t, bool) {}
#endif

#if defined(__CUDACC__)
// A word of the machine for each width. Wide ones are stored in assembly: the compiler takes an assignment of several
// narrow values apart again.
template <int kBytes>
struct WordOf;

template <>
struct WordOf<1> {
  using Type = unsigned char;
  static __device__ void store(void* to, Type word) { *static_cast<Type*>(to) = word; }
};

template <>
struct WordOf<2> {
  using Type = unsigned short;
  static __device__ void store(void* to, Type word) { *static_cast<Type*>(to) = word; }
};

template <>
struct WordOf<4> {
  using Type = unsigned int;
  static __device__ void store(void* to, Type word) {
    asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
  }
};

template <>
struct WordOf<8> {
  using Type = uint2;
  static __device__ void store(void* to, Type word) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(word.x), "r"(word.y) : "memory");
  }
};

template <>
struct WordOf<16> {
  using Type = uint4;
  static __device__ void store(void* to, Type word) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word.x), "r"(word.y), "r"(word.z),
                 "r"(word.w)
                 : "memory");
  }
};
#endif

// Of memory that the running kernel does not write.
template <int kWidth, typename Element>
PIXELBERT_HOST_DEVICE Vector<Element, kWidth> load(const Element* from) {
  Vector<Element, kWidth> vector;
#if defined(__CUDA_ARCH__)
  using Word = typename WordOf<sizeof(vector)>::Type;
  const Word word = __ldg(reinterpret_cast<const Word*>(from));
  memcpy(&vector, &word, sizeof(vector));
#else
  check_access(from, sizeof(vector), false);
  std::memcpy(&vector, from, sizeof(vector));
#endif
  return vector;
}

template <typename Element, int kWidth>
PIXELBERT_HOST_DEVICE void store(Element* to, const Vector<Element, kWidth>& vector) {
#if defined(__CUDA_ARCH__)
  using Word = WordOf<sizeof(vector)>;
  typename Word::Type word;
  memcpy(&word, &vector, sizeof(vector));
  Word::store(to, word);
#else
  check_access(to, sizeof(vector), true);
  std::memcpy(to, &vector, sizeof(vector));
#endif
}

template <typename Element>
PIXELBERT_HOST_DEVICE Element load_one(const Element* from) {
  return load<1>(from).at[0];
}

template <typename Element>
PIXELBERT_HOST_DEVICE void store_one(Element* to, Element value) {
  store(to, Vector<Element, 1>{{value}});
}

}  // namespace pixelbert

// Division by a number that is known before a kernel starts.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pixelbert {

// Divides numbers of 0 .. 2^63 - 1 by one multiplication; a GPU divides 64-bit numbers in a hundred instructions, in
// a call that costs registers. Granlund, Montgomery: "Division by invariant integers using multiplication",
// PLDI 1994: with 2^shift >= d and factor = floor(2^(63 + shift) / d) + 1, n * factor / 2^(63 + shift) exceeds n / d
// by less than 1 / d for every n < 2^63.
struct Divisor {
  int64_t value;
  uint64_t factor;
  int shift;

  // `divisor` < 2^62; by one where it is less than one, for a division that has no numbers.
  explicit Divisor(int64_t divisor) : value(divisor < 1 ? 1 : divisor), shift(0) {
    while ((int64_t{1} << shift) < value) ++shift;
    __extension__ typedef unsigned __int128 Wide;
    factor = static_cast<uint64_t>((Wide{1} << (63 + shift)) / static_cast<uint64_t>(value)) + 1;
  }

  PIXELBERT_HOST_DEVICE int64_t quotient(int64_t number) const {
    const uint64_t twice = static_cast<uint64_t>(number) << 1;
#if defined(__CUDA_ARCH__)
    const uint64_t high = __umul64hi(twice, factor);
#else
    __extension__ typedef unsigned __int128 Wide;
    const uint64_t high = static_cast<uint64_t>(Wide{twice} * factor >> 64);
#endif
    return static_cast<int64_t>(high >> shift);
  }
};

// How many blocks of `size` hold `number` things.
PIXELBERT_HOST_DEVICE constexpr int64_t blocks_of(int64_t number, int64_t size) { return (number + size - 1) / size; }

}  // namespace pixelbert

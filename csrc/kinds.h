// Element types: how values are ordered (an order key), and how they widen for sums.
//
// bfloat16 and float16 are compared by their bits: sign and magnitude become a signed 16-bit key with one zero, and
// every NaN the largest key. So nothing is converted where values are only selected. (A GPU, which converts a value in
// one instruction, compares them widened.)
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace pixelbert {

template <typename Scalar_, typename Lane_>
struct WideKind {
  using Scalar = Scalar_;
  using Wide = Scalar_;
  using Lane = Lane_;  // an integer as wide as the scalar: what a comparison of vectors gives
  using Key = Scalar_;
  static constexpr bool kComparedByBits = false;

  PIXELBERT_HOST_DEVICE static Key key(Scalar value) { return value; }
  PIXELBERT_HOST_DEVICE static bool is_nan(Key key) { return key != key; }
  PIXELBERT_HOST_DEVICE static Wide widen(Scalar value) { return value; }
  PIXELBERT_HOST_DEVICE static Scalar narrow(Wide value) { return value; }
};

using Float32 = WideKind<float, int32_t>;
using Float64 = WideKind<double, int64_t>;

template <typename Number, int kInfinity_>
struct ShortKind {
  using Scalar = uint16_t;
  using Wide = float;
  using Lane = int16_t;
  using Key = int16_t;
  static constexpr bool kComparedByBits = true;
  static constexpr Key kInfinity = kInfinity_;
  static constexpr Key kNanKey = 0x7FFF;

  PIXELBERT_HOST_DEVICE static Key key(Scalar value) {
    const int magnitude = value & 0x7FFF, sign = -(value >> 15);
    return static_cast<Key>(magnitude > kInfinity ? kNanKey : (magnitude ^ sign) - sign);
  }
  PIXELBERT_HOST_DEVICE static bool is_nan(Key key) { return key == kNanKey; }
  PIXELBERT_HOST_DEVICE static Wide widen(Scalar value) {
    if constexpr (kInfinity == 0x7F80) {  // bfloat16: the upper half of a float32
      const uint32_t bits = uint32_t{value} << 16;
      float wide;
      std::memcpy(&wide, &bits, sizeof(wide));
      return wide;
    } else {
      Number number;
      std::memcpy(&number, &value, sizeof(value));
      return static_cast<float>(number);
    }
  }
  PIXELBERT_HOST_DEVICE static Scalar narrow(Wide value) {
    const Number number(value);
    Scalar bits;
    std::memcpy(&bits, &number, sizeof(bits));
    return bits;
  }
};

using BFloat16 = ShortKind<c10::BFloat16, 0x7F80>;
using Float16 = ShortKind<c10::Half, 0x7C00>;

}  // namespace pixelbert

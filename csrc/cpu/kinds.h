// Element types: how values are ordered (an order key), and how they widen for sums.
//
// bfloat16 and float16 are compared by their bits: sign and magnitude become a signed 16-bit key with one zero, and
// every NaN the largest key. So nothing is converted where values are only selected.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>

#define PIXELBERT_ALWAYS_INLINE inline __attribute__((always_inline))

namespace pixelbert {

constexpr int kVectorBytes = 64;

template <typename Scalar_, typename Lane_>
struct WideKind {
  using Scalar = Scalar_;
  using Wide = Scalar_;
  using Lane = Lane_;  // an integer as wide as the scalar: what a comparison of vectors gives
  using Key = Scalar_;
  static constexpr int kLanes = kVectorBytes / sizeof(Scalar);
  typedef Scalar Values __attribute__((vector_size(kVectorBytes)));
  typedef Key Keys __attribute__((vector_size(kVectorBytes)));
  typedef Lane Lanes __attribute__((vector_size(kVectorBytes)));
  typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes / sizeof(Scalar))));

  template <typename Value>
  static PIXELBERT_ALWAYS_INLINE Value key(Value value) { return value; }
  template <typename Value>
  static PIXELBERT_ALWAYS_INLINE auto is_nan(Value key) { return key != key; }
  static PIXELBERT_ALWAYS_INLINE Wide widen(Scalar value) { return value; }
  static PIXELBERT_ALWAYS_INLINE Scalar narrow(Wide value) { return value; }
};

using Float32 = WideKind<float, int32_t>;
using Float64 = WideKind<double, int64_t>;

template <typename Number, int kInfinity>
struct ShortKind {
  using Scalar = uint16_t;
  using Wide = float;
  using Lane = int16_t;
  using Key = int16_t;
  static constexpr int kLanes = kVectorBytes / sizeof(Scalar);
  typedef Scalar Values __attribute__((vector_size(kVectorBytes)));
  typedef Key Keys __attribute__((vector_size(kVectorBytes)));
  typedef Lane Lanes __attribute__((vector_size(kVectorBytes)));
  typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes / sizeof(Scalar))));
  static constexpr int16_t kNanKey = 0x7FFF;

  static PIXELBERT_ALWAYS_INLINE Key key(Scalar value) {
    const int magnitude = value & 0x7FFF;
    if (magnitude > kInfinity) return kNanKey;
    return static_cast<Key>(value >> 15 ? -magnitude : magnitude);
  }
  static PIXELBERT_ALWAYS_INLINE Keys key(Values value) {
    const Keys sign = reinterpret_cast<Keys>(value) >> 15;
    const Keys magnitude = reinterpret_cast<Keys>(value) & kNanKey;
    const Lanes nan = magnitude > static_cast<int16_t>(kInfinity);
    return nan ? (Keys{} + kNanKey) : ((magnitude ^ sign) - sign);
  }
  template <typename Value>
  static PIXELBERT_ALWAYS_INLINE auto is_nan(Value key) { return key == kNanKey; }
  static PIXELBERT_ALWAYS_INLINE Wide widen(Scalar value) {
    Number number;
    std::memcpy(&number, &value, sizeof(value));
    return static_cast<float>(number);
  }
  static PIXELBERT_ALWAYS_INLINE Scalar narrow(Wide value) {
    const Number number(value);
    Scalar bits;
    std::memcpy(&bits, &number, sizeof(bits));
    return bits;
  }
};

using BFloat16 = ShortKind<c10::BFloat16, 0x7F80>;
using Float16 = ShortKind<c10::Half, 0x7C00>;

}  // namespace pixelbert

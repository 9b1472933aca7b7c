// The wanted-th smallest of many 32-bit words without a sort: one byte a pass, from the top, by histogram.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pixelbert {

constexpr int kDigits = 4;
constexpr int kBuckets = 256;

// The words that share the threshold's digits found so far, and how many of the smallest are still wanted among
// them.
struct Threshold {
  uint32_t prefix;
  int64_t wanted;
};

PIXELBERT_HOST_DEVICE int digit_shift(int pass) { return 8 * (kDigits - 1 - pass); }

// Whether `word` takes part in pass `pass`: its higher digits are the threshold's.
PIXELBERT_HOST_DEVICE bool is_candidate(uint32_t word, uint32_t prefix, int pass) {
  return pass == 0 || ((word ^ prefix) >> (digit_shift(pass) + 8)) == 0;
}

PIXELBERT_HOST_DEVICE int digit_of(uint32_t word, int pass) {
  return static_cast<int>((word >> digit_shift(pass)) & 0xFF);
}

// The state after a pass whose candidates are counted by digit in `histogram`. After the last pass `prefix` is the
// threshold, and `wanted` says how many words equal to it belong to the selection: those at the lowest places.
PIXELBERT_HOST_DEVICE Threshold narrow(Threshold state, const int64_t* histogram, int pass) {
  int digit = 0;
  while (digit < kBuckets - 1 && histogram[digit] < state.wanted) state.wanted -= histogram[digit++];
  state.prefix |= static_cast<uint32_t>(digit) << digit_shift(pass);
  return state;
}

// Whether a digit is the threshold's, given how many candidates have a smaller one and how many at most that one.
PIXELBERT_HOST_DEVICE bool is_threshold_digit(int64_t below, int64_t through, int64_t wanted) {
  return below < wanted && wanted <= through;
}

}  // namespace pixelbert

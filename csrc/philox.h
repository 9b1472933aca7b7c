// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pixelbert {

struct PhiloxWords {
  uint32_t word[4];
};

PIXELBERT_HOST_DEVICE PhiloxWords philox_4x32(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0,
                static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1,
                static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// What a place draws: the first word of the block whose counter is (row, column, key of the draw).
PIXELBERT_HOST_DEVICE uint32_t place_word(int64_t row, int64_t column, int64_t key, int64_t seed) {
  const PhiloxWords counter = {{static_cast<uint32_t>(row),
                                static_cast<uint32_t>(column),
                                static_cast<uint32_t>(key),
                                static_cast<uint32_t>(static_cast<uint64_t>(key) >> 32)}};
  const uint64_t bits = static_cast<uint64_t>(seed);
  return philox_4x32(counter, static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)).word[0];
}

}  // namespace pixelbert

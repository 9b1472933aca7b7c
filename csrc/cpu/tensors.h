// What the CPU kernels share: when another thread is worth its start.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../tensors.h"

namespace pixelbert {

constexpr int64_t kGrain = 32768;  // elements for which another thread is worth its start

inline int64_t grain_for(int64_t elements) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, elements)); }

}  // namespace pixelbert

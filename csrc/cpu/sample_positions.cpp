// sample_positions on a CPU: words by Philox, threshold by histogram, places by one ascending pass.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <vector>

#include "../philox.h"
#include "../selection.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

Threshold find_threshold(const std::vector<uint32_t>& words, int64_t wanted) {
  Threshold state{0, wanted};
  for (int pass = 0; pass < kDigits; ++pass) {
    int64_t histogram[kBuckets] = {};
    for (const uint32_t word : words) {
      if (is_candidate(word, state.prefix, pass)) ++histogram[digit_of(word, pass)];
    }
    state = narrow(state, histogram, pass);
  }
  return state;
}

void sample_row(int64_t rows, int64_t columns, int64_t grid_width, int64_t seed, int64_t key, int64_t count,
                std::vector<uint32_t>& words, int32_t* out) {
  words.resize(rows * columns);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      words[row * columns + column] = place_word(row, column, key, seed);
    }
  }
  const int64_t wanted = std::min(count, rows * columns);
  int64_t written = 0;
  if (wanted > 0) {
    Threshold threshold = find_threshold(words, wanted);
    for (int64_t place = 0; written < wanted; ++place) {
      const bool chosen =
          words[place] < threshold.prefix || (words[place] == threshold.prefix && threshold.wanted-- > 0);
      if (chosen) out[written++] = static_cast<int32_t>(place / columns * grid_width + place % columns);
    }
  }
  std::fill(out + written, out + count, -1);
}

void sample_positions(Tensor valid_grid, Tensor seed, Tensor keys, int64_t h, int64_t w, Tensor out) {
  const int32_t* valid = valid_grid.const_data_ptr<int32_t>();
  const int64_t seed_value = *seed.const_data_ptr<int64_t>();
  const int64_t* key = keys.const_data_ptr<int64_t>();
  int32_t* places = out.mutable_data_ptr<int32_t>();
  const int64_t count = out.size(1);
  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, h * w));
  torch::stable::parallel_for(0, out.size(0), grain, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> words;
    for (int64_t n = begin; n < end; ++n) {
      const int64_t rows = std::clamp<int64_t>(valid[2 * n], 0, h);
      const int64_t columns = std::clamp<int64_t>(valid[2 * n + 1], 0, w);
      sample_row(rows, columns, w, seed_value, key[n], count, words, places + n * count);
    }
  });
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("sample_positions", TORCH_BOX(&pixelbert::sample_positions));
}

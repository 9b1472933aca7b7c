// Which windows of a map the rows of positions read.
#pragma once

#include <cstdint>
#include <vector>

#include "../windows.h"

namespace pixelbert {

// Windows are numbered image * places + place. The rows that read window i are rows[starts[i]] ..
// rows[starts[i + 1] - 1], ascending; `windows` lists those that some row reads, ascending.
struct ReadWindows {
  std::vector<int64_t> starts, rows, windows;

  ReadWindows(const MapShape& shape, const int32_t* positions, const int32_t* image_index, int64_t sequences,
              int64_t count)
      : starts(shape.batch * shape.places() + 1, 0) {
    const auto window = [&](int64_t row) -> int64_t {
      const int64_t image = image_index ? image_index[row / count] : row / count;
      if (row_kind(shape, image, positions[row]) != RowKind::kPlace) return -1;
      return image * shape.places() + positions[row];
    };
    const int64_t total = sequences * count;
    for (int64_t row = 0; row < total; ++row) {
      if (const int64_t at = window(row); at >= 0) ++starts[at + 1];
    }
    for (size_t i = 1; i < starts.size(); ++i) {
      if (starts[i] > 0) windows.push_back(static_cast<int64_t>(i) - 1);
      starts[i] += starts[i - 1];
    }
    rows.resize(starts.back());
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t row = 0; row < total; ++row) {
      if (const int64_t at = window(row); at >= 0) rows[next[at]++] = row;
    }
  }

  int64_t first_reader(int64_t window) const { return rows[starts[window]]; }
};

}  // namespace pixelbert

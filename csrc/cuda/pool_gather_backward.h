// The backward of pool_gather as kernels for blocks of threads. The first lists who reads each window; the second
// writes each element of the dense gradient once, zeros included, and adds repeated places up in the order of rows.
// So nothing is filled beforehand, no two threads meet in one element, and the sums are the same every time.
//
// The lists cost 8 bytes a window and 8 a row and one launch. A sort of the places (torch's) takes about fifteen
// launches, which cost more than the whole backward of a small batch.
#pragma once

#include <cstdint>

#include "../division.h"
#include "../kinds.h"
#include "../windows.h"
#include "block.h"
#include "memory.h"

namespace pixelbert {

constexpr int64_t kNoReader = -1;

// A thread for each window looks through the rows of its image, last to first, and chains those that read it: `first`
// of a window [B * covering windows] is its lowest row, `next` [S * K] of a row the following one of the same window.
// All lanes of a warp look at the same row, which is one access. A row without a place is in no chain, and its `next`
// is not written.
struct ListReaders {
  using Shared = NothingShared;
  static constexpr int kThreads = 128;
  static constexpr int kAhead = 8;  // loads under way at once

  MapShape shape;
  const int32_t* positions;
  const int32_t* image_index;  // or null: sequence s reads image s
  int64_t sequences, count;
  int64_t* first;
  int64_t* next;
  Divisor chunks, covering_width;  // blocks for the windows of one image, and its windows in a row

  ListReaders(const MapShape& shape, const int32_t* positions, const int32_t* image_index, int64_t sequences,
              int64_t count, int64_t* first, int64_t* next)
      : shape(shape), positions(positions), image_index(image_index), sequences(sequences), count(count),
        first(first), next(next), chunks(blocks_of(shape.covering_windows(), kThreads)),
        covering_width(shape.covering_width()) {}

  PIXELBERT_HOST_DEVICE int64_t blocks() const { return shape.batch * chunks.value; }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared&) const {
    const int64_t image = chunks.quotient(block.index), chunk = block.index - image * chunks.value;
    block.each_thread<kThreads>([&](int thread) {
      const int64_t window = chunk * kThreads + thread;
      if (window >= shape.covering_windows()) return;
      const int64_t y = covering_width.quotient(window), x = window - y * covering_width.value;
      int64_t head = kNoReader;
      if (y < shape.pooled_height() && x < shape.pooled_width()) {
        head = chain(image, y * shape.pooled_width() + x);
      }
      store_one(first + image * shape.covering_windows() + window, head);
    });
  }

 private:
  PIXELBERT_HOST_DEVICE int64_t chain(int64_t image, int64_t place) const {
    int64_t head = kNoReader;
    if (!image_index) {
      if (image < sequences) chain_sequence(image, place, &head);
      return head;
    }
    PIXELBERT_KEEP_LOOP
    for (int64_t end = sequences; end > 0; end -= kAhead) {
      const uint32_t found = look_back(image_index, end, image);
      PIXELBERT_KEEP_LOOP
      for (int i = 0; i < kAhead; ++i) {
        if (found >> i & 1) chain_sequence(end - 1 - i, place, &head);
      }
    }
    return head;
  }

  PIXELBERT_HOST_DEVICE void chain_sequence(int64_t sequence, int64_t place, int64_t* head) const {
    const int64_t begin = sequence * count;
    PIXELBERT_KEEP_LOOP
    for (int64_t end = count; end > 0; end -= kAhead) {
      const uint32_t found = look_back(positions + begin, end, place);
      if (found == 0) continue;
      PIXELBERT_KEEP_LOOP
      for (int i = 0; i < kAhead; ++i) {
        if ((found >> i & 1) == 0) continue;
        const int64_t row = begin + end - 1 - i;
        store_one(next + row, *head);
        *head = row;
      }
    }
  }

  // Which of the `kAhead` numbers before `end`, the last in the lowest bit, are `wanted`.
  PIXELBERT_HOST_DEVICE static uint32_t look_back(const int32_t* from, int64_t end, int64_t wanted) {
    const int there = end < kAhead ? static_cast<int>(end) : kAhead;
    const int32_t* last = from + end - 1;
    int32_t numbers[kAhead];
    PIXELBERT_UNROLL
    for (int i = 0; i < kAhead; ++i) numbers[i] = load_one(last - (i < there ? i : 0));
    uint32_t found = 0;
    PIXELBERT_UNROLL
    for (int i = 0; i < kAhead; ++i) found |= uint32_t{i < there && numbers[i] == wanted} << i;
    return found;
  }
};

// The gradient of the rows [S * K, C], the winners beside it, the chains of ListReaders, and the dense gradient.
template <typename Kind>
struct Scatter {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;

  const Scalar* grad;
  const uint8_t* winners;
  const int64_t* first;
  const int64_t* next;
  MapShape shape;
  Scalar* out;
  Divisor covering_windows, covering_width;

  Scatter(const Scalar* grad, const uint8_t* winners, const ListReaders& readers, Scalar* out)
      : grad(grad), winners(winners), first(readers.first), next(readers.next), shape(readers.shape), out(out),
        covering_windows(shape.covering_windows()), covering_width(shape.covering_width()) {}

  // The sums of `kWidth` channels, from `channel` on, for the four pixels of a window.
  template <int kWidth>
  PIXELBERT_HOST_DEVICE void sum(int64_t window, int64_t channel, Wide (&sums)[kPixels][kWidth]) const {
    PIXELBERT_UNROLL
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      PIXELBERT_UNROLL
      for (int e = 0; e < kWidth; ++e) sums[pixel][e] = Wide{0};
    }
    for (int64_t row = load_one(first + window); row != kNoReader;) {
      const int64_t from = row * shape.channels + channel;
      const auto values = load<kWidth>(grad + from);
      const auto pixels = load<kWidth>(winners + from);
      row = load_one(next + row);
      PIXELBERT_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const Wide value = Kind::widen(values.at[e]);
        PIXELBERT_UNROLL
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          sums[pixel][e] += pixels.at[e] == pixel ? value : Wide{0};
        }
      }
    }
  }

  struct Corner {
    int64_t image, row, column;  // of a window's first pixel
  };

  PIXELBERT_HOST_DEVICE Corner corner_of(int64_t window) const {
    const int64_t image = covering_windows.quotient(window), within = window - image * covering_windows.value;
    const int64_t y = covering_width.quotient(within);
    return {image, 2 * y, 2 * (within - y * covering_width.value)};
  }
};

// A channels_last gradient: a thread writes `kWidth` channels of one window's four pixels.
template <typename Kind, int kWidth>
struct ScatterRows {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  using Shared = NothingShared;
  static constexpr int kThreads = 256;

  Scatter<Kind> scatter;
  Divisor vectors;  // of a pixel

  explicit ScatterRows(const Scatter<Kind>& scatter)
      : scatter(scatter), vectors(scatter.shape.channels / kWidth) {}

  PIXELBERT_HOST_DEVICE int64_t total() const {
    return scatter.shape.batch * scatter.covering_windows.value * vectors.value;
  }
  PIXELBERT_HOST_DEVICE int64_t blocks() const { return blocks_of(total(), kThreads); }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared&) const {
    block.each_thread<kThreads>([&](int thread) {
      const int64_t item = block.index * kThreads + thread;
      if (item >= total()) return;
      const int64_t window = vectors.quotient(item), channel = (item - window * vectors.value) * kWidth;
      Wide sums[kPixels][kWidth];
      scatter.template sum<kWidth>(window, channel, sums);
      const auto corner = scatter.corner_of(window);
      const MapShape& shape = scatter.shape;
      PIXELBERT_UNROLL
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        const int64_t y = corner.row + (pixel >> 1), x = corner.column + (pixel & 1);
        if (y >= shape.height || x >= shape.width) continue;
        Vector<Scalar, kWidth> values;
        PIXELBERT_UNROLL
        for (int e = 0; e < kWidth; ++e) values.at[e] = Kind::narrow(sums[pixel][e]);
        const int64_t at = (corner.image * shape.height + y) * shape.width + x;
        store(scatter.out + at * shape.channels + channel, values);
      }
    });
  }
};

// A contiguous gradient: a block sums 32 windows, neighbours along the map, for a cache line of channels, reading
// along channels; the sums turn in shared memory and are written along the map's rows.
template <typename Kind>
struct ScatterTiles {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  static constexpr int kThreads = 256;
  static constexpr int kWindows = 32;
  static constexpr int kChannels = 128 / static_cast<int>(sizeof(Scalar));
  static constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(Scalar));
  static constexpr int kColumns = 2 * kWindows;
  // An odd number of banks from line to line, so that lanes on neighbouring lines meet in none.
  static constexpr int kPitch = kColumns + (sizeof(Scalar) == 2 ? 2 : 1);

  struct Shared {
    Scalar lines[2 * kChannels * kPitch];  // the windows' upper pixels of each channel, then the lower ones
  };

  Scatter<Kind> scatter;
  int64_t windows;
  Divisor window_tiles;
  bool reads_vectors;   // rows of the gradient may be read by 16 bytes
  bool writes_vectors;  // rows of the map may be written by 16 bytes

  ScatterTiles(const Scatter<Kind>& scatter, bool reads_vectors, bool writes_vectors)
      : scatter(scatter), windows(scatter.shape.batch * scatter.shape.covering_windows()),
        window_tiles(blocks_of(windows, kWindows)), reads_vectors(reads_vectors), writes_vectors(writes_vectors) {}

  PIXELBERT_HOST_DEVICE int64_t blocks() const {
    return window_tiles.value * blocks_of(scatter.shape.channels, kChannels);
  }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared& shared) const {
    const int64_t channel_tile = window_tiles.quotient(block.index);
    const int64_t first_window = (block.index - channel_tile * window_tiles.value) * kWindows;
    const int64_t first_channel = channel_tile * kChannels;
    block.each_thread<kThreads>([&](int thread) {
      reads_vectors ? read<kWidth>(shared, first_window, first_channel, thread)
                    : read<1>(shared, first_window, first_channel, thread);
    });
    block.barrier();
    block.each_thread<kThreads>([&](int thread) {
      writes_vectors ? write<kWidth>(shared, first_window, first_channel, thread)
                     : write<1>(shared, first_window, first_channel, thread);
    });
  }

 private:
  template <int kStep>
  PIXELBERT_HOST_DEVICE void read(Shared& shared, int64_t first_window, int64_t first_channel, int thread) const {
    constexpr int kAcross = kChannels / kStep;
    for (int item = thread; item < kWindows * kAcross; item += kThreads) {
      const int window = item / kAcross, c = item % kAcross * kStep;
      if (first_window + window >= windows || first_channel + c >= scatter.shape.channels) continue;
      Wide sums[kPixels][kStep];
      scatter.template sum<kStep>(first_window + window, first_channel + c, sums);
      PIXELBERT_UNROLL
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        PIXELBERT_UNROLL
        for (int e = 0; e < kStep; ++e) {
          const int line = (pixel >> 1) * kChannels + c + e;
          shared.lines[line * kPitch + 2 * window + (pixel & 1)] = Kind::narrow(sums[pixel][e]);
        }
      }
    }
  }

  // A thread keeps its columns and goes from line to line. Vectors lie within one row of the map, because its width is
  // a multiple of theirs.
  template <int kStep>
  PIXELBERT_HOST_DEVICE void write(const Shared& shared, int64_t first_window, int64_t first_channel,
                                   int thread) const {
    constexpr int kAcross = kColumns / kStep;
    const MapShape& shape = scatter.shape;
    const int column = thread % kAcross * kStep;
    if (first_window + column / 2 >= windows) return;
    const auto corner = scatter.corner_of(first_window + column / 2);
    const int64_t x = corner.column + column % 2, plane = shape.height * shape.width;
    if (x >= shape.width) return;
    for (int line = thread / kAcross; line < 2 * kChannels; line += kThreads / kAcross) {
      const int64_t channel = first_channel + line % kChannels, y = corner.row + line / kChannels;
      if (channel >= shape.channels || y >= shape.height) continue;
      Vector<Scalar, kStep> values;
      PIXELBERT_UNROLL
      for (int e = 0; e < kStep; ++e) values.at[e] = shared.lines[line * kPitch + column + e];
      store(scatter.out + (corner.image * shape.channels + channel) * plane + y * shape.width + x, values);
    }
  }
};

// Hands the two kernels, in their order, to `launch`. A gradient with one channel is as good as channels_last.
template <typename Kind, typename Launch>
void launch_scatter(const ListReaders& readers, const Scatter<Kind>& scatter, bool channels_last,
                    const Launch& launch) {
  constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(typename Kind::Scalar));
  const MapShape& shape = scatter.shape;
  if (shape.batch * shape.channels * shape.height * shape.width == 0) return;
  launch(readers);
  const bool whole_vectors = shape.channels % kWidth == 0 && is_aligned(scatter.grad, kVectorBytes) &&
                             is_aligned(scatter.winners, kWidth);
  const bool aligned_out = is_aligned(scatter.out, kVectorBytes);
  if (!channels_last && shape.channels != 1) {
    launch(ScatterTiles<Kind>(scatter, whole_vectors, aligned_out && shape.width % kWidth == 0));
  } else if (whole_vectors && aligned_out) {
    launch(ScatterRows<Kind, kWidth>(scatter));
  } else {
    launch(ScatterRows<Kind, 1>(scatter));
  }
}

}  // namespace pixelbert

// The forward of pool_gather as kernels for blocks of threads: along channels where these are neighbours in memory,
// along positions where they are not.
#pragma once

#include <cmath>
#include <cstdint>

#include "../division.h"
#include "../kinds.h"
#include "../windows.h"
#include "block.h"
#include "memory.h"

namespace pixelbert {

// Rows of the flattened positions [S * K], and the outputs [S * K, C].
template <typename Kind>
struct Gather {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;

  const Scalar* features;
  MapShape shape;
  MapStrides strides;
  const int32_t* positions;
  const int32_t* image_index;  // or null: sequence s reads image s
  const Wide* embedding;       // or null
  int64_t rows;
  Divisor count, pooled_width;
  Scalar* out;
  uint8_t* winners;  // or null

  struct Source {
    RowKind kind;
    int64_t offset;  // of the window's first pixel; of the map's first window where there is none
  };

  PIXELBERT_HOST_DEVICE Source source(int64_t row) const {
    const int64_t sequence = count.quotient(row), place = load_one(positions + row);
    const int64_t image = image_index ? load_one(image_index + sequence) : sequence;
    const RowKind kind = row_kind(shape, image, place);
    const bool exists = kind == RowKind::kPlace;
    const int64_t inside = exists ? place : 0, y = pooled_width.quotient(inside), x = inside - y * pooled_width.value;
    return {kind, (exists ? image : 0) * strides.batch + window_offset(strides, y, x)};
  }

  PIXELBERT_HOST_DEVICE static Scalar missing(RowKind kind) {
    return Kind::narrow(kind == RowKind::kNone ? Wide{0} : static_cast<Wide>(NAN));
  }

  struct Winner {
    Wide value;
    uint32_t pixel;
  };

  PIXELBERT_HOST_DEVICE static Winner winner_of(const Scalar* pixels) {
    Winner best = {Kind::widen(pixels[0]), 0};
    PIXELBERT_UNROLL
    for (uint32_t pixel = 1; pixel < kPixels; ++pixel) {
      const Wide value = Kind::widen(pixels[pixel]);
      const bool take = takes_over(value, best.value);
      best.value = take ? value : best.value;
      best.pixel = take ? pixel : best.pixel;
    }
    return best;
  }
};

// A map without a window, where nothing may be read.
template <typename Kind>
struct FillMissing {
  using Shared = NothingShared;
  static constexpr int kThreads = 256;

  Gather<Kind> gather;
  Divisor channels;

  explicit FillMissing(const Gather<Kind>& gather) : gather(gather), channels(gather.shape.channels) {}

  PIXELBERT_HOST_DEVICE int64_t total() const { return gather.rows * channels.value; }
  PIXELBERT_HOST_DEVICE int64_t blocks() const { return blocks_of(total(), kThreads); }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared&) const {
    block.each_thread<kThreads>([&](int thread) {
      const int64_t item = block.index * kThreads + thread;
      if (item >= total()) return;
      const int32_t place = load_one(gather.positions + channels.quotient(item));
      store_one(gather.out + item, Gather<Kind>::missing(place == -1 ? RowKind::kNone : RowKind::kInvalid));
      if (gather.winners) store_one(gather.winners + item, uint8_t{0});
    });
  }
};

// Channels are neighbours. A thread takes `kItems` vectors of `kWidth` channels of one row each, and has the four
// pixels of all of them under way before it looks at the first: no jump stands between, for a row without a place and
// a thread beyond the last vector read what another does. Threads of a block are neighbours along the output.
template <typename Kind, int kWidth>
struct GatherRows {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  using Shared = NothingShared;
  static constexpr int kThreads = 256;
  static constexpr int kItems = kWidth == 1 ? 4 : 2;

  Gather<Kind> gather;
  Divisor vectors;  // of a row

  explicit GatherRows(const Gather<Kind>& gather) : gather(gather), vectors(gather.shape.channels / kWidth) {}

  PIXELBERT_HOST_DEVICE int64_t total() const { return gather.rows * vectors.value; }
  PIXELBERT_HOST_DEVICE int64_t blocks() const { return blocks_of(total(), kThreads * kItems); }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared&) const {
    block.each_thread<kThreads>([&](int thread) {
      const int64_t first = block.index * (kThreads * kItems) + thread;
      int64_t channel[kItems], to[kItems];
      typename Gather<Kind>::Source source[kItems];
      PIXELBERT_UNROLL
      for (int i = 0; i < kItems; ++i) {
        const int64_t item = first + i * kThreads < total() ? first + i * kThreads : total() - 1;
        const int64_t row = vectors.quotient(item);
        channel[i] = (item - row * vectors.value) * kWidth;
        to[i] = item * kWidth;
        source[i] = gather.source(row);
      }
      Vector<Scalar, kWidth> pixels[kItems][kPixels];
      PIXELBERT_UNROLL
      for (int i = 0; i < kItems; ++i) {
        const Scalar* origin = gather.features + source[i].offset + channel[i];
        PIXELBERT_UNROLL
        for (int pixel = 0; pixel < kPixels; ++pixel) {
          pixels[i][pixel] = load<kWidth>(origin + pixel_offset(gather.strides, pixel));
        }
      }
      PIXELBERT_UNROLL
      for (int i = 0; i < kItems; ++i) {
        if (first + i * kThreads < total()) write(to[i], channel[i], source[i].kind, pixels[i]);
      }
    });
  }

 private:
  PIXELBERT_HOST_DEVICE void write(int64_t to, int64_t channel, RowKind kind,
                                   const Vector<Scalar, kWidth>* pixels) const {
    Vector<Scalar, kWidth> values;
    uint32_t winners[blocks_of(kWidth, 4)] = {};  // a byte each
    Wide added[kWidth] = {};
    if (gather.embedding) read_embedding(channel, added);
    PIXELBERT_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      const Scalar four[kPixels] = {pixels[0].at[e], pixels[1].at[e], pixels[2].at[e], pixels[3].at[e]};
      const auto winner = Gather<Kind>::winner_of(four);
      values.at[e] = Kind::narrow(gather.embedding ? winner.value + added[e] : winner.value);
      winners[e / 4] |= winner.pixel << (8 * (e % 4));
    }
    if (kind != RowKind::kPlace) {
      PIXELBERT_UNROLL
      for (int e = 0; e < kWidth; ++e) values.at[e] = Gather<Kind>::missing(kind);
    }
    store(gather.out + to, values);
    if (!gather.winners) return;
    Vector<uint8_t, kWidth> bytes;
    PIXELBERT_UNROLL
    for (int e = 0; e < kWidth; ++e) bytes.at[e] = static_cast<uint8_t>(winners[e / 4] >> (8 * (e % 4)));
    store(gather.winners + to, bytes);
  }

  PIXELBERT_HOST_DEVICE void read_embedding(int64_t channel, Wide* added) const {
    constexpr int kPart = kWidth == 1 ? 1 : kVectorBytes / static_cast<int>(sizeof(Wide));
    PIXELBERT_UNROLL
    for (int begin = 0; begin < kWidth; begin += kPart) {
      const auto part = load<kPart>(gather.embedding + channel + begin);
      PIXELBERT_UNROLL
      for (int e = 0; e < kPart; ++e) added[begin + e] = part.at[e];
    }
  }
};

// Any strides. Lanes of a warp are rows: sampled places ascend, so that neighbouring lanes find their pixels in the
// same cache lines of a channel's plane. A tile of the output turns in shared memory, to be written along channels.
template <typename Kind>
struct GatherTiles {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  static constexpr int kThreads = 256;
  static constexpr int kRows = 32;                                          // a warp's lanes
  static constexpr int kChannels = 128 / static_cast<int>(sizeof(Scalar));  // a cache line of output
  static constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(Scalar));
  static constexpr int kAhead = sizeof(Scalar) == 8 ? 2 : 4;  // channels whose pixels are under way at once
  // An odd number of banks from row to row, so that neither writing nor reading a tile meets one bank twice.
  static constexpr int kPitch = kChannels + (sizeof(Scalar) == 2 ? 2 : 1);
  static constexpr int kWinnerPitch = kChannels + 4;

  struct Shared {
    Scalar values[kRows * kPitch];
    uint8_t winners[kRows * kWinnerPitch];
  };

  Gather<Kind> gather;
  Divisor row_tiles;
  bool pairs;    // the two pixels of a window's row are neighbours and may be loaded at once
  bool vectors;  // the output may be written by 16 bytes

  GatherTiles(const Gather<Kind>& gather, bool pairs, bool vectors)
      : gather(gather), row_tiles(blocks_of(gather.rows, kRows)), pairs(pairs), vectors(vectors) {}

  PIXELBERT_HOST_DEVICE int64_t blocks() const {
    return row_tiles.value * blocks_of(gather.shape.channels, kChannels);
  }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared& shared) const {
    const int64_t channel_tile = row_tiles.quotient(block.index);
    const int64_t first_row = (block.index - channel_tile * row_tiles.value) * kRows;
    const int64_t first_channel = channel_tile * kChannels;
    block.each_thread<kThreads>([&](int thread) { read(shared, first_row, first_channel, thread); });
    block.barrier();
    block.each_thread<kThreads>([&](int thread) {
      vectors ? write<kWidth>(shared, first_row, first_channel, thread)
              : write<1>(shared, first_row, first_channel, thread);
    });
  }

 private:
  static constexpr int kWarps = kThreads / kRows;

  PIXELBERT_HOST_DEVICE void read(Shared& shared, int64_t first_row, int64_t first_channel, int thread) const {
    const int lane = thread % kRows;
    if (first_row + lane >= gather.rows) return;
    const auto source = gather.source(first_row + lane);
    const int64_t last_channel = gather.shape.channels - 1;
    for (int begin = thread / kRows; begin < kChannels; begin += kWarps * kAhead) {
      Scalar pixels[kAhead][kPixels];
      PIXELBERT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int64_t wanted = first_channel + begin + i * kWarps;
        const int64_t channel = wanted < last_channel ? wanted : last_channel;
        const Scalar* origin = gather.features + source.offset + channel * gather.strides.channel;
        if (pairs) {
          const auto upper = load<2>(origin), lower = load<2>(origin + gather.strides.row);
          pixels[i][0] = upper.at[0], pixels[i][1] = upper.at[1];
          pixels[i][2] = lower.at[0], pixels[i][3] = lower.at[1];
        } else {
          PIXELBERT_UNROLL
          for (int pixel = 0; pixel < kPixels; ++pixel) {
            pixels[i][pixel] = load_one(origin + pixel_offset(gather.strides, pixel));
          }
        }
      }
      PIXELBERT_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int c = begin + i * kWarps;
        if (first_channel + c > last_channel) continue;
        const auto winner = Gather<Kind>::winner_of(pixels[i]);
        const Wide added = gather.embedding ? load_one(gather.embedding + first_channel + c) : Wide{0};
        const Scalar value = Kind::narrow(gather.embedding ? winner.value + added : winner.value);
        const bool exists = source.kind == RowKind::kPlace;
        shared.values[lane * kPitch + c] = exists ? value : Gather<Kind>::missing(source.kind);
        shared.winners[lane * kWinnerPitch + c] = static_cast<uint8_t>(winner.pixel);
      }
    }
  }

  template <int kStep>
  PIXELBERT_HOST_DEVICE void write(const Shared& shared, int64_t first_row, int64_t first_channel,
                                   int thread) const {
    constexpr int kAcross = kChannels / kStep;
    for (int item = thread; item < kRows * kAcross; item += kThreads) {
      const int row = item / kAcross, c = item % kAcross * kStep;
      if (first_row + row >= gather.rows || first_channel + c >= gather.shape.channels) continue;
      Vector<Scalar, kStep> values;
      Vector<uint8_t, kStep> winners;
      PIXELBERT_UNROLL
      for (int e = 0; e < kStep; ++e) {
        values.at[e] = shared.values[row * kPitch + c + e];
        winners.at[e] = shared.winners[row * kWinnerPitch + c + e];
      }
      const int64_t to = (first_row + row) * gather.shape.channels + first_channel + c;
      store(gather.out + to, values);
      if (gather.winners) store(gather.winners + to, winners);
    }
  }
};

// Whether offsets by whole images, rows and pixels are multiples of `width` elements, wherever there are several.
inline bool keeps_multiples(const MapShape& shape, const MapStrides& strides, int width) {
  return (shape.batch <= 1 || strides.batch % width == 0) && strides.row % width == 0 && strides.column % width == 0;
}

// Hands the kernel that fits the strides and addresses to `launch`.
template <typename Kind, typename Launch>
void launch_gather(Gather<Kind> gather, const Launch& launch) {
  using Scalar = typename Kind::Scalar;
  constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(Scalar));
  const MapShape& shape = gather.shape;
  if (gather.rows == 0 || shape.channels == 0) return;
  if (shape.channels == 1) gather.strides.channel = 1;
  if (shape.batch == 0 || shape.places() == 0) return launch(FillMissing<Kind>(gather));
  const MapStrides& strides = gather.strides;
  const bool writes_vectors = shape.channels % kWidth == 0 && is_aligned(gather.out, kVectorBytes) &&
                              is_aligned(gather.winners, kWidth);
  if (strides.channel != 1) {
    const bool pairs = strides.column == 1 && strides.row % 2 == 0 && strides.channel % 2 == 0 &&
                       (shape.batch <= 1 || strides.batch % 2 == 0) &&
                       is_aligned(gather.features, 2 * sizeof(Scalar));
    launch(GatherTiles<Kind>(gather, pairs, writes_vectors));
  } else if (writes_vectors && keeps_multiples(shape, strides, kWidth) &&
             is_aligned(gather.features, kVectorBytes) && is_aligned(gather.embedding, kVectorBytes)) {
    launch(GatherRows<Kind, kWidth>(gather));
  } else {
    launch(GatherRows<Kind, 1>(gather));
  }
}

}  // namespace pixelbert

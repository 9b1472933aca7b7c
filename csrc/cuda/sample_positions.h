// sample_positions as a kernel for blocks of threads, a block a row. Each thread has a run of neighbouring valid
// places and draws their words anew in every pass: twenty multiplications cost less than keeping them and set no limit
// to the grid. The threshold comes from four histograms; the places below it are written in order, by prefix sums of
// the threads' counts.
#pragma once

#include <cstdint>

#include "../division.h"
#include "../philox.h"
#include "../selection.h"
#include "block.h"
#include "memory.h"

namespace pixelbert {

struct SamplePositions {
  static constexpr int kThreads = kBuckets;  // a thread for each bucket of a histogram
  static constexpr int kSteps = 8;           // of a prefix sum: log2(kThreads)

  struct Shared {
    uint32_t histogram[kThreads];
    uint64_t counts[kThreads];
    uint64_t sums[2][kThreads];
    int64_t wanted;
    uint32_t digit;
  };

  const int32_t* valid_grid;  // [N, 2]
  const int64_t* seed;
  const int64_t* keys;  // [N]
  int64_t rows, h, w, count;
  int32_t* out;  // [N, count]

  PIXELBERT_HOST_DEVICE int64_t blocks() const { return count == 0 ? 0 : rows; }

  PIXELBERT_HOST_DEVICE void run(const Block& block, Shared& shared) const {
    const Draw draw = draw_of(block.index);
    int32_t* places = out + block.index * count;
    if (draw.wanted > 0) {
      Threshold threshold = {0, draw.wanted};
      for (int pass = 0; pass < kDigits; ++pass) threshold = narrowed(block, shared, draw, threshold, pass);
      select(block, shared, draw, threshold, places);
    }
    block.each_thread<kThreads>([&](int thread) {
      for (int64_t i = draw.wanted + thread; i < count; i += kThreads) store_one(places + i, int32_t{-1});
    });
  }

 private:
  struct Draw {
    int64_t valid, columns, wanted, seed, key;
  };

  PIXELBERT_HOST_DEVICE static int64_t clamped(int64_t value, int64_t most) {
    return value < 0 ? 0 : value > most ? most : value;
  }

  PIXELBERT_HOST_DEVICE Draw draw_of(int64_t row) const {
    const int64_t valid_rows = clamped(load_one(valid_grid + 2 * row), h);
    const int64_t columns = clamped(load_one(valid_grid + 2 * row + 1), w), valid = valid_rows * columns;
    return {valid, columns, count < valid ? count : valid, load_one(seed), load_one(keys + row)};
  }

  // Calls `use(word, place)` for the thread's run of valid places, ascending.
  template <typename Use>
  PIXELBERT_HOST_DEVICE void each_place(const Draw& draw, int thread, const Use& use) const {
    const int64_t length = blocks_of(draw.valid, kThreads), begin = thread * length;
    const int64_t end = begin + length < draw.valid ? begin + length : draw.valid;
    if (begin >= end) return;
    int64_t row = begin / draw.columns, column = begin - row * draw.columns;
    for (int64_t i = begin; i < end; ++i) {
      use(place_word(row, column, draw.key, draw.seed), row * w + column);
      if (++column == draw.columns) column = 0, ++row;
    }
  }

  PIXELBERT_HOST_DEVICE static void count_one(uint32_t* bucket) {
#if defined(__CUDA_ARCH__)
    atomicAdd(bucket, 1u);  // a count is the same in whatever order
#else
    ++*bucket;
#endif
  }

  // Prefix sums, each thread's own count included; `counts` are written and behind a barrier.
  PIXELBERT_HOST_DEVICE static const uint64_t* prefix_sums(const Block& block, Shared& shared) {
    const uint64_t* from = shared.counts;
    for (int step = 0; step < kSteps; ++step) {
      uint64_t* to = shared.sums[step % 2];
      const int back = 1 << step;
      block.each_thread<kThreads>([&](int thread) {
        to[thread] = from[thread] + (thread >= back ? from[thread - back] : 0);
      });
      block.barrier();
      from = to;
    }
    return from;
  }

  PIXELBERT_HOST_DEVICE Threshold narrowed(const Block& block, Shared& shared, const Draw& draw,
                                           Threshold threshold, int pass) const {
    block.each_thread<kThreads>([&](int thread) { shared.histogram[thread] = 0; });
    block.barrier();
    block.each_thread<kThreads>([&](int thread) {
      each_place(draw, thread, [&](uint32_t word, int64_t) {
        if (is_candidate(word, threshold.prefix, pass)) count_one(&shared.histogram[digit_of(word, pass)]);
      });
    });
    block.barrier();
    block.each_thread<kThreads>([&](int thread) { shared.counts[thread] = shared.histogram[thread]; });
    block.barrier();
    const uint64_t* sums = prefix_sums(block, shared);
    block.each_thread<kThreads>([&](int thread) {
      const int64_t through = static_cast<int64_t>(sums[thread]);
      const int64_t below = through - static_cast<int64_t>(shared.counts[thread]);
      if (!is_threshold_digit(below, through, threshold.wanted)) return;
      shared.digit = static_cast<uint32_t>(thread);
      shared.wanted = threshold.wanted - below;
    });
    block.barrier();
    return {threshold.prefix | shared.digit << digit_shift(pass), shared.wanted};
  }

  // A thread's places below the threshold and equal to it are counted in the two halves of one number.
  PIXELBERT_HOST_DEVICE void select(const Block& block, Shared& shared, const Draw& draw, Threshold threshold,
                                    int32_t* places) const {
    block.each_thread<kThreads>([&](int thread) {
      uint64_t counts = 0;
      each_place(draw, thread, [&](uint32_t word, int64_t) {
        counts += word < threshold.prefix ? uint64_t{1} << 32 : word == threshold.prefix;
      });
      shared.counts[thread] = counts;
    });
    block.barrier();
    const uint64_t* sums = prefix_sums(block, shared);
    block.each_thread<kThreads>([&](int thread) {
      const uint64_t before = sums[thread] - shared.counts[thread];
      int64_t equal = static_cast<int64_t>(before & 0xFFFFFFFF);
      int64_t rank = static_cast<int64_t>(before >> 32) + (equal < threshold.wanted ? equal : threshold.wanted);
      each_place(draw, thread, [&](uint32_t word, int64_t place) {
        const bool chosen = word < threshold.prefix || (word == threshold.prefix && equal++ < threshold.wanted);
        if (chosen) store_one(places + rank++, static_cast<int32_t>(place));
      });
    });
  }
};

}  // namespace pixelbert

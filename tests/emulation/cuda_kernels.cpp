// The CUDA kernels as a CPU runs them: the same structs, grids and choices of csrc/cuda/, block after block and in
// each step thread after thread. Every access to a tensor's memory is checked, and writes are counted.
#define PIXELBERT_CHECKED_MEMORY
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../../csrc/cuda/pool_gather_backward.h"
#include "../../csrc/cuda/pool_gather_forward.h"
#include "../../csrc/cuda/sample_positions.h"

namespace {

struct Range {
  const char* begin;
  size_t bytes;
  bool writable;
  std::vector<uint8_t> writes;  // of each byte
};

std::vector<Range> ranges;
std::string message, launched;

void allow(const void* begin, int64_t bytes, bool writable) {
  const size_t size = begin == nullptr ? 0 : static_cast<size_t>(bytes);
  ranges.push_back({static_cast<const char*>(begin), size, writable, {}});
  if (writable) ranges.back().writes.resize(size);
}

}  // namespace

namespace pixelbert {

void check_access(const void* address, size_t bytes, bool writes) {
  if (!is_aligned(address, bytes)) throw std::runtime_error("an access is not aligned");
  const char* at = static_cast<const char*>(address);
  for (Range& range : ranges) {
    if (at < range.begin || at + bytes > range.begin + range.bytes || (writes && !range.writable)) continue;
    for (size_t i = 0; writes && i < bytes; ++i) ++range.writes[at - range.begin + i];
    return;
  }
  throw std::runtime_error(writes ? "a write out of bounds" : "a read out of bounds");
}

}  // namespace pixelbert

namespace {

using namespace pixelbert;

struct Emulate {
  template <typename Work>
  void operator()(const Work& work) const {
    static_assert(std::is_trivially_copyable<Work>::value, "a kernel's arguments are copied as bytes");
    static_assert(std::is_trivial<typename Work::Shared>::value, "shared memory has no constructor");
    auto shared = std::make_unique<typename Work::Shared>();
    for (int64_t block = 0; block < work.blocks(); ++block) {
      std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(*shared));  // what another block left: NaN
      work.run(Block{block}, *shared);
    }
    launched += name(work) + ";";
  }

  template <typename Kind, int kWidth>
  static std::string name(const GatherRows<Kind, kWidth>&) {
    return "rows by " + std::to_string(kWidth);
  }
  template <typename Kind>
  static std::string name(const GatherTiles<Kind>& work) {
    return std::string("tiles") + (work.pairs ? " of pairs" : "") + (work.vectors ? ", vectors out" : "");
  }
  template <typename Kind>
  static std::string name(const FillMissing<Kind>&) {
    return "missing";
  }
  static std::string name(const ListReaders&) { return "readers"; }
  template <typename Kind, int kWidth>
  static std::string name(const ScatterRows<Kind, kWidth>&) {
    return "rows by " + std::to_string(kWidth);
  }
  template <typename Kind>
  static std::string name(const ScatterTiles<Kind>& work) {
    return std::string("tiles") + (work.reads_vectors ? ", vectors in" : "") +
           (work.writes_vectors ? ", vectors out" : "");
  }
  static std::string name(const SamplePositions&) { return "sample"; }
};

template <typename Run>
void with_number(int kind, const Run& run) {
  switch (kind) {
    case 0: return run(Float32{});
    case 1: return run(Float64{});
    case 2: return run(BFloat16{});
    default: return run(Float16{});
  }
}

// Runs and returns the kernels that were launched, or what went wrong after "error: ". The first range is the result:
// every byte of it must have been written once.
template <typename Run>
const char* guarded(const Run& run) {
  launched.clear();
  try {
    run();
    for (const uint8_t writes : ranges.front().writes) {
      if (writes != 1) throw std::runtime_error("a byte was written " + std::to_string(writes) + " times");
    }
    message = launched;
  } catch (const std::exception& error) {
    message = std::string("error: ") + error.what();
  }
  ranges.clear();
  return message.c_str();
}

int64_t extent(const MapShape& shape, const MapStrides& strides) {
  if (shape.batch * shape.channels * shape.height * shape.width == 0) return 0;
  return 1 + (shape.batch - 1) * strides.batch + (shape.channels - 1) * strides.channel +
         (shape.height - 1) * strides.row + (shape.width - 1) * strides.column;
}

}  // namespace

extern "C" const char* emulate_pool_gather_forward(int kind, const void* features, const int64_t* shape,
                                                   const int64_t* strides, const int32_t* positions,
                                                   const int32_t* image_index, const void* embedding,
                                                   int64_t sequences, int64_t count, void* out, uint8_t* winners) {
  const MapShape map = {shape[0], shape[1], shape[2], shape[3]};
  const MapStrides steps = {strides[0], strides[1], strides[2], strides[3]};
  return guarded([&] {
    with_number(kind, [&](auto number) {
      using Kind = decltype(number);
      using Scalar = typename Kind::Scalar;
      using Wide = typename Kind::Wide;
      const int64_t elements = sequences * count * map.channels;
      allow(out, elements * sizeof(Scalar), true);
      allow(winners, elements, true);
      allow(features, extent(map, steps) * sizeof(Scalar), false);
      allow(positions, sequences * count * sizeof(int32_t), false);
      allow(image_index, sequences * sizeof(int32_t), false);
      allow(embedding, map.channels * sizeof(Wide), false);
      launch_gather(Gather<Kind>{static_cast<const Scalar*>(features), map, steps, positions, image_index,
                                 static_cast<const Wide*>(embedding), sequences * count, Divisor(count),
                                 Divisor(map.pooled_width()), static_cast<Scalar*>(out), winners},
                    Emulate{});
      for (const uint8_t writes : ranges.at(1).writes) {
        if (writes != 1) throw std::runtime_error("a winner was not written once");
      }
    });
  });
}

extern "C" const char* emulate_pool_gather_backward(int kind, const void* grad, const uint8_t* winners,
                                                    const int32_t* positions, const int32_t* image_index,
                                                    int64_t sequences, int64_t count, const int64_t* shape,
                                                    bool channels_last, void* out) {
  const MapShape map = {shape[0], shape[1], shape[2], shape[3]};
  const int64_t windows = map.batch * map.covering_windows(), rows = sequences * count;
  std::vector<int64_t> lists(windows + rows, int64_t{1} << 40);  // not set: no row at all
  return guarded([&] {
    with_number(kind, [&](auto number) {
      using Kind = decltype(number);
      using Scalar = typename Kind::Scalar;
      allow(out, map.batch * map.channels * map.height * map.width * sizeof(Scalar), true);
      allow(lists.data(), lists.size() * sizeof(int64_t), true);
      allow(grad, rows * map.channels * sizeof(Scalar), false);
      allow(winners, rows * map.channels, false);
      allow(positions, rows * sizeof(int32_t), false);
      allow(image_index, sequences * sizeof(int32_t), false);
      const ListReaders readers(map, positions, image_index, sequences, count, lists.data(),
                                lists.data() + windows);
      launch_scatter(readers, Scatter<Kind>(static_cast<const Scalar*>(grad), winners, readers,
                                            static_cast<Scalar*>(out)),
                     channels_last, Emulate{});
    });
  });
}

extern "C" const char* emulate_sample_positions(const int32_t* valid_grid, int64_t seed, const int64_t* keys,
                                                int64_t rows, int64_t h, int64_t w, int64_t count, int32_t* out) {
  return guarded([&] {
    allow(out, rows * count * sizeof(int32_t), true);
    allow(valid_grid, 2 * rows * sizeof(int32_t), false);
    allow(&seed, sizeof(seed), false);
    allow(keys, rows * sizeof(int64_t), false);
    const SamplePositions work = {valid_grid, &seed, keys, rows, h, w, count, out};
    if (rows * count > 0) Emulate{}(work);
  });
}

extern "C" int64_t divided(int64_t number, int64_t divisor) { return Divisor(divisor).quotient(number); }

// A decoded picture -> the pixels a model reads, in one pass: resized as Pillow does, to the bit, and normalised.
//
// Pillow's bilinear resize of 8-bit pixels (`Image.Resampling.BILINEAR`): along rows and along columns, by a triangle
// as wide as the reduction; weights of 22 bits below the point; rounded to 8 bits after each direction. Rows are
// resized when a row below first needs them, so that they are still in the cache when they are read.
//
// Bytes are widened and narrowed by intrinsics: compilers take conversions of vectors of bytes apart.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../tensors.h"
#include "rows.h"

namespace pixelbert {
namespace {

constexpr int kWeightBits = 22;
constexpr int32_t kHalf = 1 << (kWeightBits - 1);
constexpr int kLowBits = 11;  // a weight is two factors of 16 bits: what lies above these, and these

// Pictures of more bytes are written past the caches: nothing of them would be left there when they are read.
constexpr int64_t kPastCache = 1 << 20;

// How many bytes `across` may read, or write, behind a row's last pixel.
constexpr int64_t kBehind = 16;

// Which `count` neighbours each place of the output is made of: from `first` on, by `weights` ([places, count]).
struct Taps {
  int64_t count;
  std::vector<int64_t> first;
  std::vector<int32_t> weights;
};

Taps triangle(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / to, support = std::max(scale, 1.0), narrowed = 1.0 / support;
  Taps taps{0, std::vector<int64_t>(to), {}};
  std::vector<int64_t> sizes(to);
  for (int64_t place = 0; place < to; ++place) {
    const double center = (place + 0.5) * scale;
    const int64_t begin = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t end = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), from);
    taps.first[place] = begin;
    sizes[place] = end - begin;
    taps.count = std::max(taps.count, end - begin);
  }
  taps.weights.assign(to * taps.count, 0);
  std::vector<double> shares(taps.count);
  for (int64_t place = 0; place < to; ++place) {
    const double center = (place + 0.5) * scale;
    double sum = 0;
    for (int64_t tap = 0; tap < sizes[place]; ++tap) {
      const double distance = std::abs((taps.first[place] + tap - center + 0.5) * narrowed);
      shares[tap] = distance < 1.0 ? 1.0 - distance : 0.0;
      sum += shares[tap];
    }
    // All places read equally many neighbours, also at the end, where the first of them then weigh nothing.
    const int64_t begin = std::min(taps.first[place], from - taps.count), skipped = taps.first[place] - begin;
    int32_t* weights = taps.weights.data() + place * taps.count + skipped;
    for (int64_t tap = 0; tap < sizes[place]; ++tap) {
      const double share = sum != 0 ? shares[tap] / sum : shares[tap];
      weights[tap] = static_cast<int32_t>(0.5 + share * (1 << kWeightBits));
    }
    taps.first[place] = begin;
  }
  return taps;
}

// The taps along rows. Vectors take `pixels` places at a time, and four taps: `pairs` holds for each of these the
// upper factors of two taps (for red, green, blue and nothing) of each place, of the next two, then the lower ones.
struct Across : Taps {
  int64_t places, fours;
  std::vector<int32_t> offsets;  // of the first tap, in bytes
  std::vector<int16_t> pairs;

  Across(int64_t from, int64_t to, int64_t pixels) : Taps(triangle(from, to)), places(to), fours((count + 3) / 4) {
    const int64_t blocks = (to + pixels - 1) / pixels;
    offsets.assign(blocks * pixels, 0);
    for (int64_t place = 0; place < to; ++place) offsets[place] = static_cast<int32_t>(3 * first[place]);
    if (pixels == 1) return;
    pairs.assign(blocks * fours * 4 * pixels * 8, 0);
    for (int64_t place = 0; place < to; ++place) {
      int16_t* const block = pairs.data() + place / pixels * fours * 4 * pixels * 8 + place % pixels * 8;
      for (int64_t tap = 0; tap < count; ++tap) {
        const int32_t weight = weights[place * count + tap];
        int16_t* const upper = block + (tap / 4 * 4 + tap % 4 / 2) * pixels * 8 + tap % 2;
        int16_t* const lower = upper + 2 * pixels * 8;
        for (int channel = 0; channel < 3; ++channel) {
          upper[2 * channel] = static_cast<int16_t>(weight >> kLowBits);
          lower[2 * channel] = static_cast<int16_t>(weight & ((1 << kLowBits) - 1));
        }
      }
    }
  }
};

// `across` may read and write `kBehind` bytes behind a row; `down` takes as many rows and weights as there are `taps`;
// `normalise` reads `scale` and `shift`, three numbers over and over, from any channel on.
struct PictureKernels {
  template <typename Scalar>
  using Normalise = void (*)(const uint8_t* levels, const float* scale, const float* shift, int64_t count,
                             bool past_cache, Scalar* out);
  int64_t pixels;
  void (*across)(const uint8_t* row, const Across& taps, uint8_t* out);
  void (*down)(const uint8_t* const* rows, const int32_t* weights, int64_t taps, int64_t count, uint8_t* out);
  Normalise<float> normalise;
  Normalise<uint16_t> normalise_bfloat16, normalise_float16;
};

}  // namespace
}  // namespace pixelbert

#define PIXELBERT_OF_LEVEL "resize_picture_of_level.h"
#include "levels.h"

namespace pixelbert {
namespace {

using torch::stable::Tensor;

const PictureKernels& picture_kernels() {
#if defined(__x86_64__)
  const int64_t level = level_in_use();
  if (level == 2) return Avx512::kernels;
  if (level == 1) return Avx2::kernels;
#endif
  return Portable::kernels;
}

// The rows of a picture, resized along both axes, from the first to the last.
class ResizedRows {
 public:
  ResizedRows(const Tensor& picture, int64_t height, int64_t width)
      : picture_(static_cast<const uint8_t*>(picture.const_data_ptr())),
        stride_(3 * picture.size(1)),
        end_(picture_ + picture.size(0) * stride_),
        across_(picture.size(1), width, kernels_.pixels),
        down_(triangle(picture.size(0), height)),
        is_as_wide_(picture.size(1) == width),
        // Pillow's order since version 13: along rows first, unless columns shrink by more than twice as many pixels.
        down_first_(height < picture.size(0) && picture.size(0) - height > 2 * (picture.size(1) - width)),
        row_bytes_(3 * width),
        read_(down_.count),
        row_(std::max(stride_, row_bytes_) + kBehind),
        last_(stride_ + kBehind),
        made_((is_as_wide_ ? 0 : down_first_ ? 1 : down_.count) * (row_bytes_ + kBehind)) {}

  // ``[width, 3]``, until the next is asked for.
  const uint8_t* row(int64_t y) {
    const bool across_first = !is_as_wide_ && !down_first_;
    for (int64_t tap = 0; tap < down_.count; ++tap) {
      const int64_t row = down_.first[y] + tap;
      read_[tap] = across_first ? made_of(row) : picture_ + row * stride_;
    }
    const uint8_t* row = read_[0];
    if (down_.count > 1) {
      kernels_.down(read_.data(), down_.weights.data() + y * down_.count, down_.count,
                    across_first ? row_bytes_ : stride_, row_.data());
      row = row_.data();
    }
    return is_as_wide_ || across_first ? row : resized(row, made_.data());
  }

 private:
  // A row of the picture at the new width; made when it is first asked for, and kept while others read it.
  const uint8_t* made_of(int64_t row) {
    for (; next_ <= row; ++next_) resized(picture_ + next_ * stride_, made(next_));
    return made(row);
  }

  uint8_t* made(int64_t row) { return made_.data() + row % down_.count * (row_bytes_ + kBehind); }

  const uint8_t* resized(const uint8_t* row, uint8_t* out) {
    if (row != row_.data() && end_ - row < stride_ + kBehind) {  // nothing may be read behind the picture
      std::memcpy(last_.data(), row, stride_);
      row = last_.data();
    }
    kernels_.across(row, across_, out);
    return out;
  }

  const PictureKernels& kernels_ = picture_kernels();
  const uint8_t* picture_;
  int64_t stride_;
  const uint8_t* end_;
  Across across_;
  Taps down_;
  bool is_as_wide_, down_first_;
  int64_t row_bytes_, next_ = 0;
  std::vector<const uint8_t*> read_;
  std::vector<uint8_t> row_, last_, made_;
};

// The three numbers as often as a vector needs them that begins at any channel.
std::vector<float> repeated(const Tensor& three) {
  std::vector<float> values(48);
  const auto* given = static_cast<const float*>(three.const_data_ptr());
  for (size_t place = 0; place < values.size(); ++place) values[place] = given[place % 3];
  return values;
}

void resize_picture(Tensor picture, Tensor scale, Tensor shift, Tensor out) {
  using torch::headeronly::ScalarType;
  const int64_t height = out.size(0), count = 3 * out.size(1), stride = out.stride(0);
  const auto scales = repeated(scale), shifts = repeated(shift);
  const auto& kernels = picture_kernels();
  const auto dtype = out.scalar_type();
  void* const written = out.mutable_data_ptr();
  ResizedRows rows(picture, height, out.size(1));
  const bool past_cache = height * count * static_cast<int64_t>(sizeof(float)) > kPastCache;
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = rows.row(y);
    auto* const shorts = static_cast<uint16_t*>(written) + y * stride;
    switch (dtype) {
      case ScalarType::Byte:
        std::memcpy(static_cast<uint8_t*>(written) + y * stride, row, count);
        break;
      case ScalarType::Float:
        kernels.normalise(row, scales.data(), shifts.data(), count, past_cache,
                          static_cast<float*>(written) + y * stride);
        break;
      case ScalarType::BFloat16:
        kernels.normalise_bfloat16(row, scales.data(), shifts.data(), count, past_cache, shorts);
        break;
      case ScalarType::Half:
        kernels.normalise_float16(row, scales.data(), shifts.data(), count, past_cache, shorts);
        break;
      default: STD_TORCH_CHECK(false, "a picture becomes uint8, float32, bfloat16 or float16");
    }
  }
#if defined(__x86_64__)
  _mm_sfence();  // what went past the caches is seen by other threads from here on
#endif
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("resize_picture", TORCH_BOX(&pixelbert::resize_picture));
}

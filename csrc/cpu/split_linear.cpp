// A linear map of float32 by bfloat16 products: each number is the sum of two bfloat16s, and of the four products of
// two such sums the three that count are added up in float32. With AMX that takes a third of the time.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define PIXELBERT_HAS_TILES 1
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pixelbert {
namespace {

using torch::stable::Tensor;

// Rows and columns of a product's block, and how many numbers of the inner dimension a tile holds.
constexpr int64_t kBlock = 32, kInner = 32, kHalf = 16;
// bfloat16s of one tile; of a packed block: columns 0-15 and 16-31 of the first halves, then of the second ones.
constexpr int64_t kTile = kHalf * kInner, kPacked = 4 * kTile;

uint16_t nearest_half(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

float widened(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

void pack_split_linear(Tensor weight, Tensor packed) {
  const int64_t columns = weight.size(0), inner = weight.size(1);
  const auto* from = static_cast<const float*>(weight.const_data_ptr());
  auto* to = static_cast<uint16_t*>(packed.mutable_data_ptr());
  for (int64_t block = 0; block < columns / kBlock; ++block) {
    for (int64_t step = 0; step < inner / kInner; ++step, to += kPacked) {
      for (int64_t column = 0; column < kBlock; ++column) {
        for (int64_t place = 0; place < kInner; ++place) {
          const float value = from[(block * kBlock + column) * inner + step * kInner + place];
          const uint16_t first = nearest_half(value);
          // A tile's row holds two neighbours of the inner dimension for each of 16 columns.
          const int64_t at = column / kHalf * kTile + place / 2 * kInner + column % kHalf * 2 + place % 2;
          to[at] = first;
          to[at + 2 * kTile] = nearest_half(value - widened(first));
        }
      }
    }
  }
}

#if defined(PIXELBERT_HAS_TILES)
#define PIXELBERT_TILES __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bf16,avx512bw,avx512vl")))

bool tiles_usable() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = (d >> 22 & 1) && (d >> 24 & 1);
  if (!tiles || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return false;
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_a_row[16] = {};
  uint8_t rows[16] = {};
};

// One row's 32 numbers as 32 first and 32 second halves.
PIXELBERT_TILES void split_row(const float* from, uint16_t* first, uint16_t* second) {
  for (int64_t at = 0; at < kInner; at += kHalf) {
    const __m512 value = _mm512_loadu_ps(from + at);
    const __m256i high = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value));
    const __m512 rounded = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    const __m256i low = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_sub_ps(value, rounded)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(first + at), high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(second + at), low);
  }
}

// A block of 32 x 32 results. `first` and `second` hold 32 rows of 32 numbers, the next step `stride` further on.
PIXELBERT_TILES void multiply_block(const uint16_t* first, const uint16_t* second, int64_t stride,
                                    const uint16_t* packed, int64_t steps, const float* bias, int64_t rows,
                                    int64_t columns, float* out) {  // no bias: adds to what is there
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t step = 0; step < steps; ++step, first += stride, second += stride, packed += kPacked) {
    _tile_loadd(4, first, 64);
    _tile_loadd(5, first + kTile, 64);
    _tile_loadd(6, packed, 64);
    _tile_loadd(7, packed + kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, packed + 2 * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(6, packed + 3 * kTile, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_dpbf16ps(3, 5, 6);
    _tile_loadd(4, second, 64);
    _tile_loadd(5, second + kTile, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, packed, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
  }
  alignas(64) float sums[4][kHalf * kHalf];
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  for (int64_t row = 0; row < rows; ++row, out += columns) {
    const float* added = bias ? bias : out;
    const __m512 left = _mm512_loadu_ps(added), right = _mm512_loadu_ps(added + kHalf);
    const float(*pair)[kHalf * kHalf] = sums + row / kHalf * 2;
    const int64_t at = row % kHalf * kHalf;
    _mm512_storeu_ps(out, _mm512_add_ps(left, _mm512_load_ps(pair[0] + at)));
    _mm512_storeu_ps(out + kHalf, _mm512_add_ps(right, _mm512_load_ps(pair[1] + at)));
  }
}

PIXELBERT_TILES void multiply_rows(const float* from, int64_t rows, int64_t inner, const uint16_t* packed,
                                   const float* bias, int64_t columns, float* out) {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) shapes.bytes_a_row[tile] = 64, shapes.rows[tile] = kHalf;
  _tile_loadconfig(&shapes);
  // So many rows, and so much of the inner dimension, at a time that their halves stay in the second cache beside a
  // block of columns, while the columns are not read too often.
  constexpr int64_t kRows = 256, kDeep = 768;
  std::vector<uint16_t> first(kRows * kDeep), second(kRows * kDeep);
  const int64_t steps = inner / kInner;
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int64_t count = rows - begin < kRows ? rows - begin : kRows;
    for (int64_t deep = 0; deep < inner; deep += kDeep) {
      const int64_t these = (inner - deep < kDeep ? inner - deep : kDeep) / kInner;
      for (int64_t row = 0; row < (count + kBlock - 1) / kBlock * kBlock; ++row) {
        for (int64_t step = 0; step < these; ++step) {
          const int64_t at = (step * kRows + row) * kInner;
          if (row < count) {
            split_row(from + (begin + row) * inner + deep + step * kInner, &first[at], &second[at]);
          } else {
            __builtin_memset(&first[at], 0, kInner * sizeof(uint16_t));
            __builtin_memset(&second[at], 0, kInner * sizeof(uint16_t));
          }
        }
      }
      for (int64_t block = 0; block < columns / kBlock; ++block) {
        const uint16_t* weights = packed + (block * steps + deep / kInner) * kPacked;
        for (int64_t row = 0; row < count; row += kBlock) {
          multiply_block(&first[row * kInner], &second[row * kInner], kRows * kInner, weights, these,
                         deep ? nullptr : bias + block * kBlock, count - row < kBlock ? count - row : kBlock, columns,
                         out + (begin + row) * columns + block * kBlock);
        }
      }
    }
  }
  _tile_release();
}
#endif

int64_t split_linear_usable() {
#if defined(PIXELBERT_HAS_TILES)
  static const bool usable = tiles_usable();
  return usable;
#else
  return 0;
#endif
}

void split_linear([[maybe_unused]] Tensor rows, [[maybe_unused]] Tensor packed, [[maybe_unused]] Tensor bias,
                  [[maybe_unused]] Tensor out) {
  STD_TORCH_CHECK(split_linear_usable(), "this processor has no AMX, or the system does not let it be used");
#if defined(PIXELBERT_HAS_TILES)
  const int64_t inner = rows.size(1), columns = out.size(1);
  const auto* from = static_cast<const float*>(rows.const_data_ptr());
  const auto* weights = static_cast<const uint16_t*>(packed.const_data_ptr());
  const auto* added = static_cast<const float*>(bias.const_data_ptr());
  auto* to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t count = rows.size(0), blocks = (count + kBlock - 1) / kBlock;
  torch::stable::parallel_for(0, blocks, 2, [&](int64_t begin, int64_t end) {
    const int64_t row = begin * kBlock, last = end * kBlock < count ? end * kBlock : count;
    multiply_rows(from + row * inner, last - row, inner, weights, added, columns, to + row * columns);
  });
#endif
}

}  // namespace
}  // namespace pixelbert

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CPU, library) {
  library.impl("pack_split_linear", TORCH_BOX(&pixelbert::pack_split_linear));
  library.impl("split_linear", TORCH_BOX(&pixelbert::split_linear));
}

STABLE_TORCH_LIBRARY_IMPL(pixelbert_fast_native, CompositeExplicitAutograd, library) {
  library.impl("split_linear_usable", TORCH_BOX(&pixelbert::split_linear_usable));
}

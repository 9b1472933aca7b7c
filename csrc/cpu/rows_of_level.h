// The loops along channels for one instruction set; levels.h includes this once for each.
namespace pixelbert {
namespace {

template <typename Kind>
struct PIXELBERT_LEVEL {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  using Lane = typename Kind::Lane;
  typedef Scalar Values __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef Lane Lanes __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef typename Kind::Key Keys __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  static constexpr int kLanes = PIXELBERT_VECTOR_BYTES / sizeof(Scalar);
  typedef uint8_t Bytes __attribute__((vector_size(PIXELBERT_VECTOR_BYTES / sizeof(Scalar))));

  template <typename Vector, typename From>
  PIXELBERT_INLINE Vector load(const From* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof(vector));
    return vector;
  }

  template <typename Vector, typename To>
  PIXELBERT_INLINE void store(To* to, Vector vector) {
    __builtin_memcpy(to, &vector, sizeof(vector));
  }

  PIXELBERT_INLINE Keys keys(Values value) {
    if constexpr (Kind::kComparedByBits) {
      const Keys bits = reinterpret_cast<Keys>(value);
      const Keys sign = bits >> 15, magnitude = bits & Kind::kNanKey;
      return magnitude > Kind::kInfinity ? Keys{} + Kind::kNanKey : (magnitude ^ sign) - sign;
    } else {
      return value;
    }
  }

  PIXELBERT_INLINE Lanes takes_over(Keys key, Keys best) {
    if constexpr (Kind::kComparedByBits) {
      return (key > best) | (key == Kind::kNanKey);
    } else {
      return (key > best) | (key != key);
    }
  }

  template <bool kSaveWinners>
  PIXELBERT_INLINE void select_block(const Scalar* const* pixels, int64_t begin, int64_t end, const Wide* vector,
                                     Scalar* out, uint8_t* winners) {
    int64_t c = begin;
    for (; c + kLanes <= end; c += kLanes) {
      Values best = load<Values>(pixels[0] + c);
      Keys best_key = keys(best);
      Lanes winner = {};
      for (int pixel = 1; pixel < kPixels; ++pixel) {
        const Values value = load<Values>(pixels[pixel] + c);
        const Keys key = keys(value);
        const Lanes take = takes_over(key, best_key);
        best = take ? value : best;
        best_key = take ? key : best_key;
        if constexpr (kSaveWinners) winner = take ? Lanes{} + static_cast<Lane>(pixel) : winner;
      }
      if constexpr (!Kind::kComparedByBits) {
        if (vector) best += load<Values>(vector + c);
      }
      store(out + c, best);
      if constexpr (kSaveWinners) store(winners + c, __builtin_convertvector(winner, Bytes));
    }
    const int64_t rest = c;
    for (; c < end; ++c) {
      int winner = 0;
      auto best_key = Kind::key(pixels[0][c]);
      for (int pixel = 1; pixel < kPixels; ++pixel) {
        const auto key = Kind::key(pixels[pixel][c]);
        if (key > best_key || Kind::is_nan(key)) best_key = key, winner = pixel;
      }
      out[c] = pixels[winner][c];
      if constexpr (kSaveWinners) winners[c] = static_cast<uint8_t>(winner);
    }
    // Added where it is still in the first cache; types compared by their bits add in another one.
    if (vector) {
      for (c = Kind::kComparedByBits ? begin : rest; c < end; ++c) {
        out[c] = Kind::narrow(Kind::widen(out[c]) + vector[c]);
      }
    }
  }

  PIXELBERT_TARGET static void select(const Scalar* const* pixels, int64_t channels, const Wide* vector, Scalar* out,
                                      uint8_t* winners) {
    for (int64_t begin = 0; begin < channels; begin += kSelectBlock) {
      const int64_t end = begin + kSelectBlock < channels ? begin + kSelectBlock : channels;
      if (winners) {
        select_block<true>(pixels, begin, end, vector, out, winners);
      } else {
        select_block<false>(pixels, begin, end, vector, out, winners);
      }
    }
  }

  PIXELBERT_TARGET static void scatter(const Scalar* grad, const uint8_t* winners, int64_t channels,
                                       Scalar* const* pixels) {
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      const Lanes value = load<Lanes>(grad + c);
      const Lanes winner = __builtin_convertvector(load<Bytes>(winners + c), Lanes);
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        store(pixels[pixel] + c, value & (winner == static_cast<Lane>(pixel)));
      }
    }
    for (; c < channels; ++c) {
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        pixels[pixel][c] = winners[c] == pixel ? grad[c] : Scalar{0};
      }
    }
  }

  static constexpr RowKernels<Kind> kernels = {select, scatter};
};

}  // namespace
}  // namespace pixelbert

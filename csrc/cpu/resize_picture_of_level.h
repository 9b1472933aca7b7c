// The loops of resize_picture for one instruction set; levels.h includes this once for each.
namespace pixelbert {
namespace {

struct PIXELBERT_LEVEL {
  static constexpr int kLanes = PIXELBERT_VECTOR_BYTES / sizeof(float);
  typedef float Values __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef int32_t Sums __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef uint32_t Words __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef uint16_t Halves __attribute__((vector_size(PIXELBERT_VECTOR_BYTES / 2)));

#if PIXELBERT_VECTOR_BYTES == 64
  typedef __m512i Register;
#elif PIXELBERT_VECTOR_BYTES == 32
  typedef __m256i Register;
#endif

  // GCC 12 warns of the forms without a mask, which leave a register as it is before they overwrite all of it.
  PIXELBERT_INLINE Sums widen(const uint8_t* from) {
#if PIXELBERT_VECTOR_BYTES == 64
    return reinterpret_cast<Sums>(
        _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif PIXELBERT_VECTOR_BYTES == 32
    return reinterpret_cast<Sums>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    return Sums{from[0], from[1], from[2], from[3]};
#endif
  }

#if PIXELBERT_VECTOR_BYTES > 16
  // The low bytes of all lanes, at the beginning.
  PIXELBERT_INLINE __m128i low_bytes(Sums sums) {
    const Register words = reinterpret_cast<Register>(sums);
#if PIXELBERT_VECTOR_BYTES == 64
    return _mm512_maskz_cvtepi32_epi8(0xFFFF, words);
#else
    const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    return _mm_packus_epi16(halves, halves);
#endif
  }

  PIXELBERT_INLINE __m256i two_lanes(const uint8_t* low, const uint8_t* high) {
    return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(high), reinterpret_cast<const __m128i*>(low));
  }

  // Sixteen bytes of the row from each of so many pixels on as a vector has lanes of that size.
  PIXELBERT_INLINE Register gather(const uint8_t* row, const int32_t* offsets) {
    const __m256i two = two_lanes(row + offsets[0], row + offsets[1]);
#if PIXELBERT_VECTOR_BYTES == 64
    const __m256i more = two_lanes(row + offsets[2], row + offsets[3]);
    return _mm512_maskz_inserti64x4(0xFF, _mm512_castsi256_si512(two), more, 1);
#else
    return two;
#endif
  }

  // Sums of two neighbours' products, of each colour: the first colours of `pixels` are those of `order`.
  PIXELBERT_INLINE Sums products(Register pixels, __m128i order, const int16_t* weights) {
#if PIXELBERT_VECTOR_BYTES == 64
    const Register pairs = _mm512_shuffle_epi8(pixels, _mm512_maskz_broadcast_i32x4(0xFFFF, order));
    return reinterpret_cast<Sums>(_mm512_madd_epi16(pairs, _mm512_loadu_si512(weights)));
#else
    const Register pairs = _mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(order));
    return reinterpret_cast<Sums>(
        _mm256_madd_epi16(pairs, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights))));
#endif
  }

  PIXELBERT_TARGET static void across(const uint8_t* row, const Across& taps, uint8_t* out) {
    constexpr int kPixels = PIXELBERT_VECTOR_BYTES / 16;
    // Of the first and the third of four pixels in a lane: red beside the next one's red, and so on, widened.
    const __m128i first = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m128i third = _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m128i packed = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    constexpr int kStep = 8 * kPixels;
    const int16_t* weights = taps.pairs.data();
    for (int64_t place = 0; place < taps.places; place += kPixels) {
      Sums high = {}, low = Sums{} + kHalf;
      for (int64_t four = 0; four < taps.fours; ++four, weights += 4 * kStep) {
        const Register pixels = gather(row + 12 * four, taps.offsets.data() + place);
        high += products(pixels, first, weights) + products(pixels, third, weights + kStep);
        low += products(pixels, first, weights + 2 * kStep) + products(pixels, third, weights + 3 * kStep);
      }
      const __m128i bytes = low_bytes(((high << kLowBits) + low) >> kWeightBits);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * place), _mm_shuffle_epi8(bytes, packed));
    }
  }
#else
  PIXELBERT_TARGET static void across(const uint8_t* row, const Across& taps, uint8_t* out) {
    for (int64_t place = 0; place < taps.places; ++place) {
      const uint8_t* from = row + taps.offsets[place];
      const int32_t* weights = taps.weights.data() + place * taps.count;
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      for (int64_t tap = 0; tap < taps.count; ++tap) {
        for (int channel = 0; channel < 3; ++channel) sums[channel] += from[3 * tap + channel] * weights[tap];
      }
      for (int channel = 0; channel < 3; ++channel) out[3 * place + channel] = sums[channel] >> kWeightBits;
    }
  }
#endif

  PIXELBERT_TARGET static void down(const uint8_t* const* rows, const int32_t* weights, int64_t taps, int64_t count,
                                    uint8_t* out) {
    int64_t place = 0;
    for (; place + kLanes <= count; place += kLanes) {
      Sums sum = Sums{} + kHalf;
      for (int64_t tap = 0; tap < taps; ++tap) sum += widen(rows[tap] + place) * weights[tap];
      sum >>= kWeightBits;
#if PIXELBERT_VECTOR_BYTES > 16
      const __m128i bytes = low_bytes(sum);
      __builtin_memcpy(out + place, &bytes, kLanes);
#else
      for (int lane = 0; lane < kLanes; ++lane) out[place + lane] = static_cast<uint8_t>(sum[lane]);
#endif
    }
    for (; place < count; ++place) {
      int32_t sum = kHalf;
      for (int64_t tap = 0; tap < taps; ++tap) sum += rows[tap][place] * weights[tap];
      out[place] = static_cast<uint8_t>(sum >> kWeightBits);
    }
  }

  template <typename Kind>
  PIXELBERT_TARGET static void normalise(const uint8_t* levels, const float* scale, const float* shift,
                                         int64_t count, bool past_cache, typename Kind::Scalar* out) {
    int64_t place = 0;
    constexpr int kBytes = kLanes * sizeof(out[0]);
    for (; place < count && reinterpret_cast<uintptr_t>(out + place) % kBytes; ++place) {
      out[place] = one<Kind>(levels, scale, shift, place);
    }
    for (int64_t channel = place % 3; place + kLanes <= count; place += kLanes, channel = (channel + kLanes) % 3) {
      Values scales, shifts;
      __builtin_memcpy(&scales, scale + channel, sizeof(scales));
      __builtin_memcpy(&shifts, shift + channel, sizeof(shifts));
      const Values values = apart(__builtin_convertvector(widen(levels + place), Values) * scales) + shifts;
      store<Kind>(out + place, values, past_cache);
    }
    for (; place < count; ++place) out[place] = one<Kind>(levels, scale, shift, place);
  }

  template <typename Kind>
  PIXELBERT_INLINE typename Kind::Scalar one(const uint8_t* levels, const float* scale, const float* shift,
                                             int64_t place) {
    return Kind::narrow(apart(levels[place] * scale[place % 3]) + shift[place % 3]);
  }

  template <typename Kind>
  PIXELBERT_INLINE void store(typename Kind::Scalar* to, Values values, bool past_cache) {
    if constexpr (std::is_same_v<Kind, BFloat16>) {
      const Words bits = reinterpret_cast<Words>(values);
      // To nearest, ties to even; there is no NaN.
      const Halves halves = __builtin_convertvector((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16, Halves);
      __builtin_memcpy(to, &halves, sizeof(halves));
    } else if constexpr (std::is_same_v<Kind, Float16>) {
      for (int lane = 0; lane < kLanes; ++lane) to[lane] = Kind::narrow(values[lane]);
    } else {
#if PIXELBERT_VECTOR_BYTES == 64
      if (past_cache) return _mm512_stream_ps(to, reinterpret_cast<__m512>(values));
#elif PIXELBERT_VECTOR_BYTES == 32
      if (past_cache) return _mm256_stream_ps(to, reinterpret_cast<__m256>(values));
#endif
      __builtin_memcpy(to, &values, sizeof(values));
    }
  }

  // A product that is rounded before anything is added: a fused pair would give other bits than PyTorch's.
  template <typename Product>
  PIXELBERT_INLINE Product apart(Product product) {
#if defined(__x86_64__)
    asm("" : "+x"(product));
#elif defined(__aarch64__)
    asm("" : "+w"(product));
#else
    asm("" : "+m"(product));
#endif
    return product;
  }

  static constexpr PictureKernels kernels = {
      PIXELBERT_VECTOR_BYTES / 16, across, down, normalise<Float32>, normalise<BFloat16>, normalise<Float16>};
};

}  // namespace
}  // namespace pixelbert

// The loops of affine_relu for one instruction set; levels.h includes this once for each.
namespace pixelbert {
namespace {

template <typename Kind>
struct PIXELBERT_LEVEL {
  using Scalar = typename Kind::Scalar;
  using Wide = typename Kind::Wide;
  static constexpr int kLanes = PIXELBERT_VECTOR_BYTES / sizeof(Wide);
  typedef Wide Values __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef uint32_t Words __attribute__((vector_size(PIXELBERT_VECTOR_BYTES)));
  typedef uint16_t Halves __attribute__((vector_size(PIXELBERT_VECTOR_BYTES / 2)));

  PIXELBERT_INLINE Values load(const Scalar* from) {
    Values values;
    if constexpr (std::is_same_v<Kind, BFloat16>) {
      Halves halves;
      __builtin_memcpy(&halves, from, sizeof(halves));
      values = reinterpret_cast<Values>(__builtin_convertvector(halves, Words) << 16);
    } else if constexpr (Kind::kComparedByBits) {
      for (int lane = 0; lane < kLanes; ++lane) values[lane] = Kind::widen(from[lane]);
    } else {
      __builtin_memcpy(&values, from, sizeof(values));
    }
    return values;
  }

  PIXELBERT_INLINE Values load_wide(const Wide* from) {
    Values values;
    __builtin_memcpy(&values, from, sizeof(values));
    return values;
  }

  PIXELBERT_INLINE void store(Scalar* to, Values values) {
    if constexpr (std::is_same_v<Kind, BFloat16>) {
      const Words bits = reinterpret_cast<Words>(values);
      const Words even = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
      const Words nan = (bits >> 16) | 0x40u;
      const Halves halves =
          __builtin_convertvector((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : even, Halves);
      __builtin_memcpy(to, &halves, sizeof(halves));
    } else if constexpr (Kind::kComparedByBits) {
      for (int lane = 0; lane < kLanes; ++lane) to[lane] = Kind::narrow(values[lane]);
    } else {
      __builtin_memcpy(to, &values, sizeof(values));
    }
  }

  PIXELBERT_TARGET static void forward(Scalar* row, const Wide* scale, const Wide* shift, const Scalar* residual,
                                       const Wide* residual_scale, int64_t channels) {
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      Values value = load(row + c) * load_wide(scale + c) + load_wide(shift + c);
      if (residual) {
        const Values other = load(residual + c);
        value += residual_scale ? other * load_wide(residual_scale + c) : other;
      }
      store(row + c, value < Wide{0} ? Values{} : value);  // a NaN stays one
    }
    for (; c < channels; ++c) {
      Wide value = Kind::widen(row[c]) * scale[c] + shift[c];
      if (residual) value += Kind::widen(residual[c]) * (residual_scale ? residual_scale[c] : Wide{1});
      row[c] = Kind::narrow(value < 0 ? Wide{0} : value);
    }
  }

  PIXELBERT_TARGET static void backward(const Scalar* grad, const Scalar* out, const Wide* scale,
                                        const Wide* residual_scale, int64_t channels, Scalar* grad_values,
                                        Scalar* grad_residual) {
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      const Values passed = load(out + c) <= Wide{0} ? Values{} : load(grad + c);
      if (grad_values) store(grad_values + c, passed * load_wide(scale + c));
      if (grad_residual) {
        store(grad_residual + c, residual_scale ? passed * load_wide(residual_scale + c) : passed);
      }
    }
    for (; c < channels; ++c) {
      const Wide passed = Kind::widen(out[c]) <= 0 ? Wide{0} : Kind::widen(grad[c]);
      if (grad_values) grad_values[c] = Kind::narrow(passed * scale[c]);
      if (grad_residual) grad_residual[c] = Kind::narrow(passed * (residual_scale ? residual_scale[c] : Wide{1}));
    }
  }

  static constexpr AffineKernels<Kind> kernels = {forward, backward};
};

}  // namespace
}  // namespace pixelbert

// The headers that host and device share, callable from Python: what the CPU kernels, the CUDA kernels and the tests
// compute with is then the same code. For checkouts only; no op needs it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "../philox.h"
#include "../selection.h"
#include "../windows.h"

#ifndef PIXELBERT_BUILD_FLAGS
#define PIXELBERT_BUILD_FLAGS ""
#endif

namespace pixelbert {
namespace {

namespace py = pybind11;

std::array<uint32_t, 4> philox(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) {
  const PhiloxWords drawn = philox_4x32({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {drawn.word[0], drawn.word[1], drawn.word[2], drawn.word[3]};
}

// The `wanted`-th smallest word, and how many words equal to it belong to the `wanted` smallest.
Threshold threshold_of(const std::vector<uint32_t>& words, int64_t wanted) {
  if (wanted < 1 || wanted > static_cast<int64_t>(words.size())) {
    throw std::invalid_argument("wanted must lie in 1 .. the number of words, got " + std::to_string(wanted));
  }
  Threshold state{0, wanted};
  for (int pass = 0; pass < kDigits; ++pass) {
    int64_t histogram[kBuckets] = {};
    for (const uint32_t word : words) {
      if (is_candidate(word, state.prefix, pass)) ++histogram[digit_of(word, pass)];
    }
    state = narrow(state, histogram, pass);
  }
  return state;
}

const char* kind_name(RowKind kind) {
  switch (kind) {
    case RowKind::kPlace:
      return "place";
    case RowKind::kNone:
      return "none";
    default:
      return "invalid";
  }
}

MapShape shape_of(const std::array<int64_t, 4>& sizes) { return {sizes[0], sizes[1], sizes[2], sizes[3]}; }

MapStrides strides_of(const std::array<int64_t, 4>& strides) {
  return {strides[0], strides[1], strides[2], strides[3]};
}

std::string compiler() {
#if defined(__clang__)
  return std::string("Clang ") + __clang_version__;
#elif defined(__GNUC__)
  return std::string("GCC ") + __VERSION__;
#else
  return "unknown";
#endif
}

std::string pybind11_version() {
  return std::to_string(PYBIND11_VERSION_MAJOR) + "." + std::to_string(PYBIND11_VERSION_MINOR);
}

py::dict build_record() {
  py::dict record;
  record["compiler"] = compiler();
  record["flags"] = PIXELBERT_BUILD_FLAGS;
  record["cplusplus"] = static_cast<long>(__cplusplus);
  record["pybind11"] = pybind11_version();
  record["python"] = PY_VERSION;
  return record;
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "The headers that host and device share (csrc/*.h), for tests and `pixelbert env`.";

  module.def("philox_4x32", &philox, py::arg("counter"), py::arg("key"),
             "The four words of Philox 4x32-10 for a counter of four words and a key of two.");
  module.def("place_word", &place_word, py::arg("row"), py::arg("column"), py::arg("key"), py::arg("seed"),
             "The word that `sample_positions` draws for a place.");
  module.def(
      "threshold",
      [](const std::vector<uint32_t>& words, int64_t wanted) {
        const Threshold found = threshold_of(words, wanted);
        return py::make_tuple(found.prefix, found.wanted);
      },
      py::arg("words"), py::arg("wanted"),
      "The wanted-th smallest word, and how many words equal to it are among the `wanted` smallest.");

  module.def(
      "pooled_grid",
      [](const std::array<int64_t, 4>& shape) {
        const MapShape map = shape_of(shape);
        return py::make_tuple(map.pooled_height(), map.pooled_width(), map.places());
      },
      py::arg("shape"), "Rows, columns and places of the pooled grid of a map [B, C, H, W].");
  module.def(
      "window_offset",
      [](const std::array<int64_t, 4>& shape, const std::array<int64_t, 4>& strides, int64_t place) {
        const MapShape map = shape_of(shape);
        if (place < 0 || place >= map.places()) throw py::index_error("place lies outside the pooled grid");
        return window_offset(map, strides_of(strides), place);
      },
      py::arg("shape"), py::arg("strides"), py::arg("place"),
      "Elements from the start of an image's channel to the first pixel of a window.");
  module.def(
      "pixel_offset",
      [](const std::array<int64_t, 4>& strides, int pixel) { return pixel_offset(strides_of(strides), pixel); },
      py::arg("strides"), py::arg("pixel"), "Elements from a window's first pixel to one of its four.");
  module.def(
      "row_kind",
      [](const std::array<int64_t, 4>& shape, int64_t image, int64_t place) {
        return kind_name(row_kind(shape_of(shape), image, place));
      },
      py::arg("shape"), py::arg("image"), py::arg("place"),
      "'place' to be read, 'none' for -1, 'invalid' for what must not be followed.");
  module.def("takes_over", &takes_over<float>, py::arg("value"), py::arg("best"),
             "Whether a later pixel of a window wins over the best before it, in float32.");

  module.def("build_record", &build_record, "What this module was compiled with.");
}

}  // namespace pixelbert

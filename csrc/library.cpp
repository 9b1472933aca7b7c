// The schemas of the native ops. Python (pixelbert_fast/ops) checks arguments, allocates outputs and registers
// gradients; here a kernel reads inputs and writes every element of its outputs.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pixelbert_fast_native, library) {
  library.def(
      "pool_gather_forward(Tensor features, Tensor positions, Tensor? embedding, Tensor? image_index,"
      " Tensor(a!) out, Tensor(b!)? winners) -> ()");
  library.def(
      "pool_gather_backward(Tensor grad, Tensor winners, Tensor positions, Tensor? image_index,"
      " Tensor(a!) grad_features) -> ()");
  library.def(
      "pixel_embed_forward(Tensor features, Tensor positions, Tensor weight, Tensor vector, Tensor? image_index,"
      " bool project_first, Tensor(a!) out, Tensor(b!) winners) -> ()");
  library.def(
      "pixel_embed_backward(Tensor grad, Tensor winners, Tensor features, Tensor positions, Tensor weight,"
      " Tensor? image_index, bool project_first, Tensor(a!)? grad_features, Tensor(b!)? grad_weight) -> ()");
  library.def(
      "sum_rows(Tensor rows, Tensor positions, Tensor? image_index, int batch, int places, Tensor(a!) out)"
      " -> ()");
  library.def(
      "sample_positions(Tensor valid_grid, Tensor seed, Tensor keys, int h, int w, Tensor(a!) out) -> ()");
  library.def(
      "affine_relu(Tensor(a!) values, Tensor scale, Tensor shift, Tensor? residual, Tensor? residual_scale) -> ()");
  library.def(
      "affine_relu_backward(Tensor grad, Tensor out, Tensor scale, Tensor? residual_scale, Tensor(a!)? grad_values,"
      " Tensor(b!)? grad_residual) -> ()");
  library.def("resize_picture(Tensor picture, Tensor scale, Tensor shift, Tensor(a!) out) -> ()");
  library.def("pack_split_linear(Tensor weight, Tensor(a!) packed) -> ()");
  library.def("split_linear(Tensor rows, Tensor packed, Tensor bias, Tensor(a!) out) -> ()");
  library.def("split_linear_usable() -> int");
  library.def("use_cpu_level(int level) -> int");
}

"""Deformable convolution on the GPU: CUDA kernels behind a C interface, and TensorRT plugins around them."""

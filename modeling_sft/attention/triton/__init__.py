"""The attention backend of CUDA kernels, written in Triton."""

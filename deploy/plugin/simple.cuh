// Kernels for every type, layout and shape: a thread a piece. Correct first; the others are held to these.
#ifndef LSTFE_SIMPLE_CUH
#define LSTFE_SIMPLE_CUH

#include "device.cuh"

namespace lstfe
{

constexpr uint32_t kSIMPLE_THREADS = 256;
constexpr int64_t kMAX_BLOCKS = 1 << 20; //!< Beyond, a thread does several pieces.

template <typename T>
__global__ void deformConvSimple(LstfeDeformConvParams p, DeformConvTensors<T> t)
{
    int64_t const step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t piece = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; piece < numDeformConvPieces(p);
         piece += step)
    {
        deformConvPiece(p, t, piece);
    }
}

template <typename T>
__global__ void sampledSumSimple(LstfeSampledSumParams p, SampledSumTensors<T> t)
{
    int64_t const step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t piece = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; piece < numSampledSumPieces(p);
         piece += step)
    {
        sampledSumPiece(p, t, piece);
    }
}

inline dim3 simpleGrid(int64_t pieces)
{
    int64_t const blocks = (pieces + kSIMPLE_THREADS - 1) / kSIMPLE_THREADS;
    return dim3(static_cast<uint32_t>(blocks < kMAX_BLOCKS ? blocks : kMAX_BLOCKS));
}

template <typename T>
cudaError_t launchSimple(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, void* stream)
{
    return launch(deformConvSimple<T>, simpleGrid(numDeformConvPieces(p)), kSIMPLE_THREADS, 0, stream, p, t);
}

template <typename T>
cudaError_t launchSimple(LstfeSampledSumParams const& p, SampledSumTensors<T> const& t, void* stream)
{
    return launch(sampledSumSimple<T>, simpleGrid(numSampledSumPieces(p)), kSIMPLE_THREADS, 0, stream, p, t);
}

} // namespace lstfe

#endif // LSTFE_SIMPLE_CUH

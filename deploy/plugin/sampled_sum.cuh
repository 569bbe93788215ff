// The sampled sum, fast: a block takes 8 neighbouring cells, a warp one of them. Corners are computed once and shared by
// all channels; lanes read 16 bytes of a row each. Neighbouring cells look at the same rows, which the block's warps
// then find in the first-level cache.
#ifndef LSTFE_SAMPLED_SUM_CUH
#define LSTFE_SAMPLED_SUM_CUH

#include "device.cuh"

namespace lstfe
{

constexpr int32_t kROW_CELLS = 8; //!< Warps of a block.
constexpr int32_t kROW_MAX_TAPS = 25;
constexpr int32_t kROW_BLOCKS = 3; //!< On one multiprocessor; leaves a thread 80 registers for rows on their way.

//! 16 bytes as floats.
template <typename T>
struct Vector
{
    static constexpr int32_t kSIZE = 8;
    __device__ __forceinline__ static void addScaled(float (&sums)[kSIZE], uint4 const& bits, float scale)
    {
        uint32_t const words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int32_t i = 0; i < 4; ++i)
        {
            float2 const pair = Packed<T>::unpack(words[i]);
            sums[2 * i] += scale * pair.x;
            sums[2 * i + 1] += scale * pair.y;
        }
    }
    __device__ __forceinline__ static uint4 pack(float const (&sums)[kSIZE])
    {
        return make_uint4(Packed<T>::pack(sums[0], sums[1]), Packed<T>::pack(sums[2], sums[3]),
            Packed<T>::pack(sums[4], sums[5]), Packed<T>::pack(sums[6], sums[7]));
    }
};

template <>
struct Vector<float>
{
    static constexpr int32_t kSIZE = 4;
    __device__ __forceinline__ static void addScaled(float (&sums)[kSIZE], uint4 const& bits, float scale)
    {
        sums[0] += scale * __uint_as_float(bits.x);
        sums[1] += scale * __uint_as_float(bits.y);
        sums[2] += scale * __uint_as_float(bits.z);
        sums[3] += scale * __uint_as_float(bits.w);
    }
    __device__ __forceinline__ static uint4 pack(float const (&sums)[kSIZE])
    {
        return make_uint4(
            __float_as_uint(sums[0]), __float_as_uint(sums[1]), __float_as_uint(sums[2]), __float_as_uint(sums[3]));
    }
};

//! Adds what one tap sees: the vector at `maps` of each of the four rows.
template <typename T>
__device__ __forceinline__ void addTapRows(
    float (&sums)[Vector<T>::kSIZE], T const* maps, int64_t cellStride, Corners const& corners)
{
    uint4 rows[4];
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) // all loads before the first use
    {
        // The whole warp has the same weight, so that skipping a row costs nothing.
        rows[i] = corners.weight[i] != 0.F ? __ldg(reinterpret_cast<uint4 const*>(maps + corners.cell[i] * cellStride))
                                           : zeroVector();
    }
#pragma unroll
    for (int32_t i = 0; i < 4; ++i)
    {
        Vector<T>::addScaled(sums, rows[i], corners.weight[i]);
    }
}

template <typename T>
__global__ void __launch_bounds__(32 * kROW_CELLS, kROW_BLOCKS)
    sampledSumRows(LstfeSampledSumParams p, SampledSumTensors<T> t)
{
    constexpr int32_t kSIZE = Vector<T>::kSIZE;
    Corners* const corners = reinterpret_cast<Corners*>(dynamicSharedMemory()); // [taps][kROW_CELLS]
    int32_t const taps = numTaps(p.sampling);
    int32_t const outCells = outputHeight(p.sampling) * outputWidth(p.sampling);
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const first = static_cast<int32_t>(blockIdx.x) * kROW_CELLS;
    int32_t const image = static_cast<int32_t>(blockIdx.y);
    for (int32_t i = thread; i < taps * kROW_CELLS; i += 32 * kROW_CELLS)
    {
        int32_t const outCell = first + i % kROW_CELLS;
        if (outCell < outCells)
        {
            corners[i] = cornersOfTap(p.sampling, t.offsets, t.mask, image, 0, i / kROW_CELLS, outCell);
        }
    }
    __syncthreads();
    int32_t const outCell = first + thread / 32;
    if (outCell >= outCells)
    {
        return;
    }
    Strides const out = stridesOf(p.layout, p.channels, outCells);
    T* const target = t.output + image * out.image + outCell * out.cell;
    for (int32_t c = thread % 32 * kSIZE; c < p.channels; c += 32 * kSIZE)
    {
        float sums[kSIZE];
#pragma unroll
        for (int32_t i = 0; i < kSIZE; ++i)
        {
            sums[i] = t.bias == nullptr ? 0.F : t.bias[c + i];
        }
        T const* const maps = t.maps + image * mapImage(p) + c;
#pragma unroll 3
        for (int32_t tap = 0; tap < taps; ++tap)
        {
            addTapRows(sums, maps + tap * p.channels, mapRow(p), corners[tap * kROW_CELLS + thread / 32]);
        }
#pragma unroll
        for (int32_t i = 0; i < kSIZE; ++i)
        {
            sums[i] = p.relu != 0 && sums[i] < 0.F ? 0.F : sums[i];
        }
        if (p.layout == LSTFE_NHWC)
        {
            *reinterpret_cast<uint4*>(target + c) = Vector<T>::pack(sums);
            continue;
        }
#pragma unroll
        for (int32_t i = 0; i < kSIZE; ++i) // the block's 8 cells lie side by side: the cache joins what they write
        {
            Element<T>::store(target + (c + i) * out.channel, sums[i]);
        }
    }
}

inline bool isAligned(void const* address)
{
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

template <typename T>
bool fitsRows(LstfeSampledSumParams const& p, SampledSumTensors<T> const& t)
{
    return p.channels % kCHANNEL_VECTOR == 0 && numTaps(p.sampling) <= kROW_MAX_TAPS && p.sampling.batch <= 65535
        && isAligned(t.maps) && isAligned(t.output);
}

template <typename T>
cudaError_t launchRows(LstfeSampledSumParams const& p, SampledSumTensors<T> const& t, void* stream)
{
    int32_t const outCells = outputHeight(p.sampling) * outputWidth(p.sampling);
    dim3 const grid(
        static_cast<uint32_t>((outCells + kROW_CELLS - 1) / kROW_CELLS), static_cast<uint32_t>(p.sampling.batch));
    size_t const shared = sizeof(Corners) * static_cast<size_t>(numTaps(p.sampling) * kROW_CELLS);
    return launch(sampledSumRows<T>, grid, 32 * kROW_CELLS, shared, stream, p, t);
}

} // namespace lstfe

#endif // LSTFE_SAMPLED_SUM_CUH

// Greedy suppression of the boxes of several classes on the device: a block a class. It puts the boxes in order by
// counting, then goes through them 64 at a time: which of them overlap, who of them is kept, and whom those drop later.
#ifndef LSTFE_CLASS_SUPPRESSION_CUH
#define LSTFE_CLASS_SUPPRESSION_CUH

#include "keeping.cuh"
#include "suppression.h"

namespace lstfe
{

constexpr int32_t kCLASS_THREADS = 512;
constexpr int32_t kSHARES = kCLASS_THREADS / kWORD; //!< Threads that look for the overlaps of one box in a word.
constexpr int32_t kSHARE_BOXES = kWORD / kSHARES;

//! The boxes that take part, in order; each class has room for all of its own.
struct SuppressionMemory
{
    float4* boxes;
    int32_t* indices;
};

//! Shared memory of a class's block.
struct ClassShared
{
    KeepShared keep;
    Key keys[kCLASS_THREADS];
    Box boxes[kWORD];
    float areas[kWORD];
    int32_t number;
};

__device__ __forceinline__ Box inputBox(SuppressionTensors const& t, int32_t place)
{
    float const* const corners = t.boxes + 4 * place; // 16 bytes at once would want more of their address
    return Box{__ldg(corners), __ldg(corners + 1), __ldg(corners + 2), __ldg(corners + 3)};
}

//! The key of box `index` of the class whose first box lies at `first`; 0 past the last one.
__device__ __forceinline__ Key keyOfBox(
    LstfeSuppressionParams const& p, SuppressionTensors const& t, int32_t first, int32_t index)
{
    int32_t const place = first + index;
    return index < p.boxes ? classKey(p, __ldg(t.scores + place), inputBox(t, place), index) : 0U;
}

__device__ __forceinline__ Box orderedBox(SuppressionMemory const& m, int32_t place)
{
    float4 const corners = m.boxes[place]; // written by this kernel: not through the read-only cache
    return Box{corners.x, corners.y, corners.z, corners.w};
}

//! Puts the boxes that take part in order, the best first. A box has as many before it as there are greater keys.
__device__ __forceinline__ void orderClass(LstfeSuppressionParams const& p, SuppressionTensors const& t,
    SuppressionMemory const& m, ClassShared& shared, int32_t first)
{
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    for (int32_t own = thread; own - thread < p.boxes; own += kCLASS_THREADS) // all threads: they load for each other
    {
        Key const key = keyOfBox(p, t, first, own);
        int32_t rank = 0;
        for (int32_t begin = 0; begin < p.boxes; begin += kCLASS_THREADS)
        {
            int32_t const left = p.boxes - begin;
            shared.keys[thread] = keyOfBox(p, t, first, begin + thread);
            __syncthreads();
            int32_t const number = left < kCLASS_THREADS ? left : kCLASS_THREADS;
#pragma unroll 8
            for (int32_t i = 0; i < number; ++i) // all threads read the same key
            {
                rank += shared.keys[i] > key ? 1 : 0;
            }
            __syncthreads();
        }
        if (key != 0U)
        {
            Box const box = inputBox(t, first + own);
            m.boxes[first + rank] = make_float4(box.x1, box.y1, box.x2, box.y2);
            m.indices[first + rank] = own;
            atomicAdd(&shared.number, 1);
        }
    }
}

//! Loads the boxes of a word and finds which of them overlap which later ones.
__device__ __forceinline__ void overlapsOfWord(
    LstfeSuppressionParams const& p, SuppressionMemory const& m, ClassShared& shared, int32_t first, int32_t word)
{
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const left = shared.number - word * kWORD;
    int32_t const number = left < kWORD ? left : kWORD;
    if (thread < kWORD)
    {
        Box const box = thread < number ? orderedBox(m, first + word * kWORD + thread) : Box{0.F, 0.F, 0.F, 0.F};
        shared.boxes[thread] = box;
        shared.areas[thread] = areaOf(box);
        shared.keep.diagonal[thread] = 0U;
    }
    __syncthreads();
    int32_t const row = thread % kWORD;
    int32_t const begin = thread / kWORD * kSHARE_BOXES;
    Key bits = 0U;
#pragma unroll
    for (int32_t j = begin; j < begin + kSHARE_BOXES; ++j)
    {
        bool const isPair = row < j && j < number;
        if (isPair && doOverlap(shared.boxes[row], shared.areas[row], shared.boxes[j], shared.areas[j], p.nmsIou))
        {
            bits |= Key{1} << j;
        }
    }
    if (bits != 0U)
    {
        atomicOr(&shared.keep.diagonal[row], bits);
    }
    __syncthreads();
}

//! Drops the boxes of later words that one just kept overlaps.
__device__ __forceinline__ void dropLater(
    LstfeSuppressionParams const& p, SuppressionMemory const& m, ClassShared& shared, int32_t first, int32_t word)
{
    for (int32_t i = (word + 1) * kWORD + static_cast<int32_t>(threadIdx.x); i < shared.number; i += kCLASS_THREADS)
    {
        Key const own = Key{1} << i % kWORD;
        Box const box = orderedBox(m, first + i);
        float const area = areaOf(box);
        bool isDropped = (shared.keep.dropped[i / kWORD] & own) != 0U;
        for (int32_t k = 0; k < shared.keep.numRows && !isDropped; ++k)
        {
            int32_t const row = shared.keep.rows[k] % kWORD;
            isDropped = doOverlap(shared.boxes[row], shared.areas[row], box, area, p.nmsIou);
            if (isDropped)
            {
                atomicOr(&shared.keep.dropped[i / kWORD], own);
            }
        }
    }
}

//! A block a class: marks the boxes that are kept.
__global__ void __launch_bounds__(kCLASS_THREADS)
    suppressClass(LstfeSuppressionParams p, SuppressionTensors t, SuppressionMemory m)
{
    ClassShared& shared = *reinterpret_cast<ClassShared*>(dynamicSharedMemory());
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const first = static_cast<int32_t>(blockIdx.x) * p.boxes;
    for (int32_t i = thread; i < p.boxes; i += kCLASS_THREADS)
    {
        t.marks[first + i] = 0;
    }
    for (int32_t i = thread; i < kMAX_WORDS; i += kCLASS_THREADS)
    {
        shared.keep.dropped[i] = 0U;
    }
    if (thread == 0)
    {
        shared.number = 0;
    }
    __syncthreads();
    orderClass(p, t, m, shared, first);
    __syncthreads();
    int32_t numKept = 0;
    for (int32_t word = 0; word * kWORD < shared.number && numKept < p.maxKept; ++word)
    {
        overlapsOfWord(p, m, shared, first, word);
        if (thread == 0)
        {
            keepOfWord(shared.keep, shared.number - word * kWORD, word, p.maxKept - numKept);
        }
        __syncthreads();
        if (thread < shared.keep.numRows)
        {
            t.marks[first + m.indices[first + shared.keep.rows[thread]]] = 1;
        }
        dropLater(p, m, shared, first, word);
        numKept += shared.keep.numRows;
        __syncthreads();
    }
}

} // namespace lstfe

#endif // LSTFE_CLASS_SUPPRESSION_CUH

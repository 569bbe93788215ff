// The best anchors in order: a radix selection over the keys of all of them, then a sort of the few that are left.
//
// A digit a launch, from the top: every block counts how many anchors have which digit, among those whose upper digits
// are the ones found before, and the next launch finds the digit of the last anchor wanted. Keys are unique, so that
// the last key is one anchor's, and equal logits need no care of their own. Nothing depends on the order of threads.
#ifndef LSTFE_SELECTION_CUH
#define LSTFE_SELECTION_CUH

#include "device.cuh"
#include "proposal.h"

namespace lstfe
{

constexpr int32_t kDIGIT_BITS = 11;
constexpr int32_t kNUM_DIGITS = 1 << kDIGIT_BITS;
constexpr int32_t kMAX_PASSES = (32 + 28 + kDIGIT_BITS - 1) / kDIGIT_BITS; //!< Logit, index of kMAX_ANCHORS.

constexpr int32_t kSELECT_THREADS = 256;
constexpr int32_t kDIGITS_PER_THREAD = kNUM_DIGITS / kSELECT_THREADS;
constexpr int32_t kGROUP = 16; //!< Threads whose sums are added up together.
constexpr int32_t kNUM_GROUPS = kSELECT_THREADS / kGROUP;
constexpr int32_t kKEYS_PER_THREAD = 4;
constexpr uint32_t kMAX_SELECT_BLOCKS = 128; //!< Each has to find the digit anew: beyond, a thread does more keys.

constexpr int32_t kORDER_THREADS = 256;
constexpr int32_t kORDER_CANDIDATES = 32; //!< Of a block, one for each lane; its warps share the comparisons.
constexpr int32_t kORDER_KEYS = 1024;     //!< In shared memory at a time.

//! What is known of the last key wanted after some passes.
struct Selected
{
    Key key;        //!< Its upper digits; the others are zero.
    int32_t wanted; //!< How many of the anchors with these upper digits are wanted.
};

//! Device memory of one call.
struct ProposalMemory
{
    uint32_t* counts;   //!< kMAX_PASSES x kNUM_DIGITS
    Selected* selected; //!< kMAX_PASSES, before each pass.
    uint32_t* found;    //!< How many keys there are so far.
    Key* keys;          //!< Candidates, in any order.
    float4* boxes;      //!< Candidates' boxes, best first.
    Key* overlaps;      //!< Candidates x words: which later boxes a box overlaps, 64 a word.
};

constexpr int32_t kNUM_COUNTERS = kMAX_PASSES * kNUM_DIGITS + 4; //!< `counts` and `found`, which start at zero.

LSTFE_HD int32_t numPasses(LstfeProposalParams const& p)
{
    return (32 + indexBits(p) + kDIGIT_BITS - 1) / kDIGIT_BITS;
}

//! The key's bits below the digits of the first `passes` passes.
LSTFE_HD int32_t bitsBelow(LstfeProposalParams const& p, int32_t passes)
{
    int32_t const bits = 32 + indexBits(p) - passes * kDIGIT_BITS;
    return bits > 0 ? bits : 0;
}

//! Shared memory of a selecting block.
struct SelectShared
{
    uint32_t counts[kNUM_DIGITS];
    uint32_t sums[kSELECT_THREADS];
    uint32_t groups[kNUM_GROUPS];
    uint32_t found, first;
    Selected selected;
};

__device__ __forceinline__ SelectShared& selectShared()
{
    return *reinterpret_cast<SelectShared*>(dynamicSharedMemory());
}

//! Adds up how many anchors have greater digits than this thread's, which are kDIGITS_PER_THREAD neighbours.
__device__ __forceinline__ uint32_t countAbove(uint32_t own)
{
    SelectShared& shared = selectShared();
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const group = thread / kGROUP;
    shared.sums[thread] = own;
    __syncthreads();
    if (thread < kNUM_GROUPS)
    {
        uint32_t sum = 0;
        for (int32_t i = 0; i < kGROUP; ++i)
        {
            sum += shared.sums[thread * kGROUP + i];
        }
        shared.groups[thread] = sum;
    }
    __syncthreads();
    uint32_t above = 0;
    for (int32_t i = group + 1; i < kNUM_GROUPS; ++i)
    {
        above += shared.groups[i];
    }
    for (int32_t i = thread + 1; i < (group + 1) * kGROUP; ++i)
    {
        above += shared.sums[i];
    }
    return above;
}

//! Finds the digit of pass `pass` - 1 from its counts; every thread of the block gets what is known then.
__device__ __forceinline__ Selected selectedBefore(LstfeProposalParams const& p, ProposalMemory const& m, int32_t pass)
{
    if (pass == 0)
    {
        return Selected{0U, numCandidates(p)};
    }
    SelectShared& shared = selectShared();
    Selected const before = m.selected[pass - 1];
    int32_t const first = static_cast<int32_t>(threadIdx.x) * kDIGITS_PER_THREAD;
    uint32_t counts[kDIGITS_PER_THREAD];
    uint32_t own = 0;
#pragma unroll
    for (int32_t i = 0; i < kDIGITS_PER_THREAD; ++i)
    {
        counts[i] = __ldg(m.counts + (pass - 1) * kNUM_DIGITS + first + i);
        own += counts[i];
    }
    uint32_t above = countAbove(own);
    uint32_t const wanted = static_cast<uint32_t>(before.wanted);
    if (above < wanted && wanted <= above + own) // one thread's digits
    {
#pragma unroll
        for (int32_t i = kDIGITS_PER_THREAD - 1; i >= 0; --i)
        {
            if (above < wanted && wanted <= above + counts[i])
            {
                Key const digit = static_cast<Key>(first + i) << bitsBelow(p, pass);
                shared.selected = Selected{before.key | digit, static_cast<int32_t>(wanted - above)};
            }
            above += counts[i];
        }
    }
    __syncthreads();
    return shared.selected;
}

//! Blocks go through the objectness in tiles, a thread looks at every 256th logit of one.
constexpr int32_t kTILE_KEYS = kSELECT_THREADS * kKEYS_PER_THREAD;

__device__ __forceinline__ int32_t firstOfTile()
{
    return static_cast<int32_t>(blockIdx.x) * kTILE_KEYS;
}

__device__ __forceinline__ int32_t tilesStep()
{
    return static_cast<int32_t>(gridDim.x) * kTILE_KEYS;
}

__device__ __forceinline__ int32_t placeOf(int32_t begin, int32_t k)
{
    return begin + k * kSELECT_THREADS + static_cast<int32_t>(threadIdx.x);
}

//! This thread's logits of a tile, 0 past the last: all loads before the first use.
__device__ __forceinline__ void loadLogits(
    float (&logits)[kKEYS_PER_THREAD], LstfeProposalParams const& p, ProposalInputs const& t, int32_t begin)
{
#pragma unroll
    for (int32_t k = 0; k < kKEYS_PER_THREAD; ++k)
    {
        int32_t const place = placeOf(begin, k);
        logits[k] = place < numAnchors(p) ? __ldg(t.objectness + place) : 0.F;
    }
}

//! Sets the counters to zero.
__global__ void clearCounters(uint32_t* counters)
{
    int32_t const i = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < kNUM_COUNTERS)
    {
        counters[i] = 0U;
    }
}

//! Counts the digits of pass `pass` among anchors that agree with the last key wanted so far.
__global__ void __launch_bounds__(kSELECT_THREADS)
    countDigits(LstfeProposalParams p, ProposalInputs t, ProposalMemory m, int32_t pass)
{
    SelectShared& shared = selectShared();
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    for (int32_t i = thread; i < kNUM_DIGITS; i += kSELECT_THREADS)
    {
        shared.counts[i] = 0U;
    }
    Selected const selected = selectedBefore(p, m, pass);
    if (blockIdx.x == 0 && thread == 0)
    {
        m.selected[pass] = selected;
    }
    __syncthreads();
    int32_t const upper = bitsBelow(p, pass);
    int32_t const lower = bitsBelow(p, pass + 1);
    for (int32_t begin = firstOfTile(); begin < numAnchors(p); begin += tilesStep())
    {
        float logits[kKEYS_PER_THREAD];
        loadLogits(logits, p, t, begin);
#pragma unroll
        for (int32_t k = 0; k < kKEYS_PER_THREAD; ++k)
        {
            int32_t const place = placeOf(begin, k);
            Key const key = keyAt(p, logits[k], place);
            if (place < numAnchors(p) && key >> upper == selected.key >> upper)
            {
                atomicAdd(&shared.counts[(key >> lower) & ((Key{1} << (upper - lower)) - 1U)], 1U);
            }
        }
    }
    __syncthreads();
    for (int32_t i = thread; i < kNUM_DIGITS; i += kSELECT_THREADS)
    {
        if (shared.counts[i] != 0U)
        {
            atomicAdd(m.counts + pass * kNUM_DIGITS + i, shared.counts[i]);
        }
    }
}

//! Collects the keys of the wanted anchors, in any order.
__global__ void __launch_bounds__(kSELECT_THREADS)
    gatherCandidates(LstfeProposalParams p, ProposalInputs t, ProposalMemory m)
{
    SelectShared& shared = selectShared();
    Key const last = selectedBefore(p, m, numPasses(p)).key;
    for (int32_t begin = firstOfTile(); begin < numAnchors(p); begin += tilesStep())
    {
        if (threadIdx.x == 0)
        {
            shared.found = 0U;
        }
        __syncthreads();
        float logits[kKEYS_PER_THREAD];
        Key keys[kKEYS_PER_THREAD];
        uint32_t places[kKEYS_PER_THREAD];
        loadLogits(logits, p, t, begin);
#pragma unroll
        for (int32_t k = 0; k < kKEYS_PER_THREAD; ++k)
        {
            int32_t const place = placeOf(begin, k);
            keys[k] = keyAt(p, logits[k], place);
            bool const isWanted = place < numAnchors(p) && keys[k] >= last;
            places[k] = isWanted ? atomicAdd(&shared.found, 1U) : ~0U;
        }
        __syncthreads();
        if (threadIdx.x == 0) // one addition a block: all of them go to the same address
        {
            shared.first = atomicAdd(m.found, shared.found);
        }
        __syncthreads();
#pragma unroll
        for (int32_t k = 0; k < kKEYS_PER_THREAD; ++k)
        {
            if (places[k] != ~0U)
            {
                m.keys[shared.first + places[k]] = keys[k];
            }
        }
        __syncthreads();
    }
}

//! Shared memory of an ordering block.
struct OrderShared
{
    Key keys[kORDER_KEYS];
    uint32_t ranks[kORDER_CANDIDATES];
};

//! Puts each candidate's box at its place in the order: a candidate has as many before it as have greater keys.
__global__ void __launch_bounds__(kORDER_THREADS)
    orderCandidates(LstfeProposalParams p, ProposalInputs t, ProposalMemory m)
{
    OrderShared& shared = *reinterpret_cast<OrderShared*>(dynamicSharedMemory());
    int32_t const number = numCandidates(p);
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const lane = thread % kORDER_CANDIDATES;
    int32_t const candidate = static_cast<int32_t>(blockIdx.x) * kORDER_CANDIDATES + lane;
    Key const own = candidate < number ? __ldg(m.keys + candidate) : 0U;
    if (thread < kORDER_CANDIDATES)
    {
        shared.ranks[thread] = 0U;
    }
    uint32_t greater = 0;
    for (int32_t begin = 0; begin < number; begin += kORDER_KEYS)
    {
        for (int32_t i = thread; i < kORDER_KEYS; i += kORDER_THREADS)
        {
            shared.keys[i] = begin + i < number ? __ldg(m.keys + begin + i) : 0U;
        }
        __syncthreads();
        constexpr int32_t kSHARE = kORDER_KEYS / (kORDER_THREADS / kORDER_CANDIDATES);
#pragma unroll 8
        for (int32_t i = 0; i < kSHARE; ++i) // all lanes of a warp read the same key
        {
            greater += shared.keys[thread / kORDER_CANDIDATES * kSHARE + i] > own ? 1U : 0U;
        }
        __syncthreads();
    }
    atomicAdd(&shared.ranks[lane], greater);
    __syncthreads();
    if (thread < kORDER_CANDIDATES && candidate < number)
    {
        Box const box = isNumber(p, own) ? boxOf(p, t, anchorOf(p, own)) : Box{0.F, 0.F, 0.F, 0.F};
        m.boxes[shared.ranks[lane]] = make_float4(box.x1, box.y1, box.x2, box.y2);
    }
}

} // namespace lstfe

#endif // LSTFE_SELECTION_CUH

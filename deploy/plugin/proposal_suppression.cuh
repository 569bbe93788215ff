// Greedy suppression of ordered proposals on the device: a table of all overlaps, made by as many blocks as there are,
// then one block that goes through it 64 boxes at a time and stops once enough are kept.
#ifndef LSTFE_PROPOSAL_SUPPRESSION_CUH
#define LSTFE_PROPOSAL_SUPPRESSION_CUH

#include "keeping.cuh"
#include "selection.cuh"

namespace lstfe
{

constexpr int32_t kKEEP_THREADS = 512;

LSTFE_HD int32_t numWords(LstfeProposalParams const& p)
{
    return (numCandidates(p) + kWORD - 1) / kWORD;
}

__device__ __forceinline__ Box boxAt(ProposalMemory const& m, int32_t candidate)
{
    float4 const corners = __ldg(m.boxes + candidate);
    return Box{corners.x, corners.y, corners.z, corners.w};
}

//! Shared memory of a block that fills the table.
struct OverlapShared
{
    Box boxes[kWORD];
    float areas[kWORD];
};

//! Fills one word of 64 rows: bit j says that the row's box overlaps box j of the word, j later than the row. What is
//! no box has its own bit. Only words on and right of the diagonal are filled, or looked at: row y of the grid does
//! the table's row y and, with the blocks left over, the row that is as far from the end.
__global__ void __launch_bounds__(kWORD) findOverlaps(LstfeProposalParams p, ProposalMemory m)
{
    OverlapShared& shared = *reinterpret_cast<OverlapShared*>(dynamicSharedMemory());
    int32_t const words = numWords(p);
    int32_t const x = static_cast<int32_t>(blockIdx.x);
    int32_t const y = static_cast<int32_t>(blockIdx.y);
    bool const isUpper = x > y;
    int32_t const rowWord = isUpper ? y : words - 1 - y;
    int32_t const word = isUpper ? x - 1 : words - 1 - x;
    if (!isUpper && rowWord == y) // the middle row has no partner
    {
        return;
    }
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const other = word * kWORD + thread;
    Box const otherBox = other < numCandidates(p) ? boxAt(m, other) : Box{0.F, 0.F, 0.F, 0.F};
    shared.boxes[thread] = otherBox;
    shared.areas[thread] = areaOf(otherBox);
    __syncthreads();
    int32_t const row = rowWord * kWORD + thread;
    if (row >= numCandidates(p))
    {
        return;
    }
    Box const box = boxAt(m, row);
    float const area = areaOf(box);
    Key bits = 0U;
#pragma unroll 4
    for (int32_t j = 0; j < kWORD; ++j)
    {
        bool const isLater = word > rowWord || j > thread;
        if (isLater && doOverlap(box, area, shared.boxes[j], shared.areas[j], p.nmsIou))
        {
            bits |= Key{1} << j;
        }
    }
    if (word == rowWord && !isBox(box))
    {
        bits |= Key{1} << thread;
    }
    m.overlaps[static_cast<int64_t>(row) * words + word] = bits;
}

struct ProposalOutputs
{
    float* boxes;   //!< P x 4
    int32_t* valid; //!< P
};

__device__ __forceinline__ void writeProposal(ProposalOutputs const& out, int32_t place, Box const& box, int32_t valid)
{
    out.boxes[4 * place] = box.x1;
    out.boxes[4 * place + 1] = box.y1;
    out.boxes[4 * place + 2] = box.x2;
    out.boxes[4 * place + 3] = box.y2;
    out.valid[place] = valid;
}

//! This thread's row of the 64 on the diagonal at `word`, 0 where there is none.
__device__ __forceinline__ Key diagonalAt(LstfeProposalParams const& p, ProposalMemory const& m, int32_t word)
{
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const row = word * kWORD + thread;
    bool const isIn = thread < kWORD && row < numCandidates(p);
    return isIn ? __ldg(m.overlaps + static_cast<int64_t>(row) * numWords(p) + word) : 0U;
}

//! Marks what the boxes just kept overlap among later words: a warp a box.
__device__ __forceinline__ void dropOverlapped(ProposalMemory const& m, KeepShared& shared, int32_t next, int32_t words)
{
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    for (int32_t k = thread / 32; k < shared.numRows; k += kKEEP_THREADS / 32)
    {
        Key const* const overlapped = m.overlaps + static_cast<int64_t>(shared.rows[k]) * words;
        for (int32_t i = next + thread % 32; i < words; i += 32)
        {
            atomicOr(&shared.dropped[i], __ldg(overlapped + i));
        }
    }
}

//! One block: keeps the best boxes and writes them; zeros where there are no more.
__global__ void __launch_bounds__(kKEEP_THREADS, 1)
    keepBest(LstfeProposalParams p, ProposalMemory m, ProposalOutputs out)
{
    KeepShared& shared = *reinterpret_cast<KeepShared*>(dynamicSharedMemory());
    int32_t const thread = static_cast<int32_t>(threadIdx.x);
    int32_t const words = numWords(p);
    for (int32_t i = thread; i < words; i += kKEEP_THREADS)
    {
        shared.dropped[i] = 0U;
    }
    int32_t numKept = 0;
    Key diagonal = diagonalAt(p, m, 0);
    for (int32_t word = 0; word < words && numKept < p.postNmsTopK; ++word)
    {
        if (thread < kWORD)
        {
            shared.diagonal[thread] = diagonal;
        }
        __syncthreads();
        diagonal = diagonalAt(p, m, word + 1); // on its way while this word is worked on
        if (thread == 0)
        {
            keepOfWord(shared, numCandidates(p) - word * kWORD, word, p.postNmsTopK - numKept);
        }
        __syncthreads();
        if (thread < shared.numRows)
        {
            writeProposal(out, numKept + thread, boxAt(m, shared.rows[thread]), 1);
        }
        dropOverlapped(m, shared, word + 1, words);
        numKept += shared.numRows;
        __syncthreads();
    }
    for (int32_t i = numKept + thread; i < p.postNmsTopK; i += kKEEP_THREADS)
    {
        writeProposal(out, i, Box{0.F, 0.F, 0.F, 0.F}, 0);
    }
}

} // namespace lstfe

#endif // LSTFE_PROPOSAL_SUPPRESSION_CUH

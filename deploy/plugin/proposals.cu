// The C function of region proposals: its memory, and its launches one after another. Nothing is allocated, and the
// host waits for nothing.
#include "checks.h"
#include "pieces.h"
#include "proposal_suppression.cuh"

namespace lstfe
{
namespace
{

ProposalMemory memoryOf(LstfeProposalParams const& p, Pieces& pieces)
{
    size_t const number = static_cast<size_t>(numCandidates(p));
    ProposalMemory memory{};
    memory.counts = pieces.take<uint32_t>(kNUM_COUNTERS);
    memory.found = memory.counts == nullptr ? nullptr : memory.counts + kMAX_PASSES * kNUM_DIGITS;
    memory.selected = pieces.take<Selected>(kMAX_PASSES);
    memory.keys = pieces.take<Key>(number);
    memory.boxes = pieces.take<float4>(number);
    memory.overlaps = pieces.take<Key>(number * static_cast<size_t>(numWords(p)));
    return memory;
}

uint32_t blocksFor(int32_t number, int32_t perBlock)
{
    return static_cast<uint32_t>((number + perBlock - 1) / perBlock);
}

cudaError_t select(LstfeProposalParams const& p, ProposalInputs const& t, ProposalMemory const& m, void* stream)
{
    cudaError_t error = launch(
        clearCounters, dim3(blocksFor(kNUM_COUNTERS, kSELECT_THREADS)), kSELECT_THREADS, 0, stream, m.counts);
    uint32_t const needed = blocksFor(numAnchors(p), kTILE_KEYS);
    dim3 const grid(needed < kMAX_SELECT_BLOCKS ? needed : kMAX_SELECT_BLOCKS);
    for (int32_t pass = 0; pass < numPasses(p) && error == cudaSuccess; ++pass)
    {
        error = launch(countDigits, grid, kSELECT_THREADS, sizeof(SelectShared), stream, p, t, m, pass);
    }
    return error != cudaSuccess
        ? error
        : launch(gatherCandidates, grid, kSELECT_THREADS, sizeof(SelectShared), stream, p, t, m);
}

cudaError_t suppress(LstfeProposalParams const& p, ProposalMemory const& m, ProposalOutputs const& out, void* stream)
{
    uint32_t const words = static_cast<uint32_t>(numWords(p));
    cudaError_t const error
        = launch(findOverlaps, dim3(words + 1, (words + 1) / 2), kWORD, sizeof(OverlapShared), stream, p, m);
    return error != cudaSuccess
        ? error
        : launch(keepBest, dim3(1), kKEEP_THREADS, sizeof(KeepShared), stream, p, m, out);
}

cudaError_t runProposals(LstfeProposalParams const& p, ProposalInputs const& t, ProposalOutputs const& out,
    ProposalMemory const& m, void* stream)
{
    cudaError_t error = select(p, t, m, stream);
    if (error == cudaSuccess)
    {
        dim3 const grid(blocksFor(numCandidates(p), kORDER_CANDIDATES));
        error = launch(orderCandidates, grid, kORDER_THREADS, sizeof(OrderShared), stream, p, t, m);
    }
    return error != cudaSuccess ? error : suppress(p, m, out, stream);
}

} // namespace
} // namespace lstfe

using namespace lstfe;

size_t lstfe_proposals_workspace(LstfeProposalParams const* params)
{
    if (checkCall(params) != LSTFE_OK)
    {
        return 0;
    }
    Pieces pieces(nullptr);
    memoryOf(*params, pieces);
    return pieces.bytes();
}

int32_t lstfe_proposals(LstfeProposalParams const* params, float const* objectness, float const* boxDeltas,
    float const* cellAnchors, int32_t const* imageSize, float* boxes, int32_t* valid, void* workspace,
    size_t workspaceBytes, void* stream)
{
    int32_t const status = checkCall(params, objectness, boxDeltas, cellAnchors, imageSize, boxes, valid);
    if (status != LSTFE_OK)
    {
        return status;
    }
    if (workspace == nullptr || workspaceBytes < lstfe_proposals_workspace(params))
    {
        return LSTFE_SMALL_WORKSPACE;
    }
    Pieces pieces(workspace);
    cudaError_t const error = runProposals(*params, ProposalInputs{objectness, boxDeltas, cellAnchors, imageSize},
        ProposalOutputs{boxes, valid}, memoryOf(*params, pieces), stream);
    return statusOf(error);
}

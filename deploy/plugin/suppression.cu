// The C function of suppression class by class: one launch. Nothing is allocated, and the host waits for nothing.
#include "checks.h"
#include "class_suppression.cuh"
#include "pieces.h"

namespace lstfe
{
namespace
{

SuppressionMemory memoryOf(LstfeSuppressionParams const& p, Pieces& pieces)
{
    size_t const number = static_cast<size_t>(p.classes) * static_cast<size_t>(p.boxes);
    SuppressionMemory memory{};
    memory.boxes = pieces.take<float4>(number);
    memory.indices = pieces.take<int32_t>(number);
    return memory;
}

} // namespace
} // namespace lstfe

using namespace lstfe;

size_t lstfe_suppression_workspace(LstfeSuppressionParams const* params)
{
    if (checkCall(params) != LSTFE_OK)
    {
        return 0;
    }
    Pieces pieces(nullptr);
    memoryOf(*params, pieces);
    return pieces.bytes();
}

int32_t lstfe_suppression(LstfeSuppressionParams const* params, float const* boxes, float const* scores,
    int32_t* marks, void* workspace, size_t workspaceBytes, void* stream)
{
    int32_t const status = checkCall(params, boxes, scores, marks);
    if (status != LSTFE_OK)
    {
        return status;
    }
    if (workspace == nullptr || workspaceBytes < lstfe_suppression_workspace(params))
    {
        return LSTFE_SMALL_WORKSPACE;
    }
    Pieces pieces(workspace);
    cudaError_t const error = launch(suppressClass, dim3(static_cast<uint32_t>(params->classes)), kCLASS_THREADS,
        sizeof(ClassShared), stream, *params, SuppressionTensors{boxes, scores, marks}, memoryOf(*params, pieces));
    return statusOf(error);
}

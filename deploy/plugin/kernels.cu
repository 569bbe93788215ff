// The C functions: which kernel does which work, and its launch.
#include "checks.h"
#include "choice.cuh"
#include "sampled_sum.cuh"
#include "simple.cuh"

namespace lstfe
{
namespace
{

template <typename T>
bool areAligned(DeformConvTensors<T> const& t)
{
    return isAligned(t.features) && isAligned(t.weight) && isAligned(t.output);
}

//! Most shared memory that a block of a tile may ever want on a device, for any number of taps.
template <typename Shape>
size_t mostSharedBytes(Device const& device)
{
    size_t const most = Shape::sharedBytes(kTILE_MAX_TAPS);
    size_t const there = static_cast<size_t>(device.sharedBytes);
    return most < there ? most : there;
}

template <typename T, typename Shape>
cudaError_t launchTile(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, Device const& device,
    Split const& split, void* stream)
{
    int64_t const cells = numOutCells(p.sampling);
    TileSize const tile{Shape::kCELLS, Shape::kOUTS, Shape::sharedBytes(numTaps(p.sampling))};
    dim3 const grid(static_cast<uint32_t>(tilesDown(p, tile)), static_cast<uint32_t>(tilesAcross(p, tile)),
        static_cast<uint32_t>(split.count));
    cudaError_t error = allowSharedMemory(deformConvTile<T, Shape>, mostSharedBytes<Shape>(device));
    error = error != cudaSuccess
        ? error
        : launch(deformConvTile<T, Shape>, grid, Shape::kTHREADS, tile.sharedBytes, stream, p, t, split);
    if (error != cudaSuccess || split.count == 1)
    {
        return error;
    }
    int64_t const pairs = cells * p.outChannels / 2;
    return launch(addSplits<T>, simpleGrid(pairs), kSIMPLE_THREADS, 0, stream, p, t, split, pairs);
}

template <typename T>
int32_t runTiles(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, Device const& device,
    int32_t algorithm, Split const& split, void* stream)
{
    switch (algorithm)
    {
    case LSTFE_TILE_64X64: return statusOf(launchTile<T, Tile64x64>(p, t, device, split, stream));
    case LSTFE_TILE_128X128: return statusOf(launchTile<T, Tile128x128>(p, t, device, split, stream));
    default: return statusOf(launchTile<T, Tile128x256>(p, t, device, split, stream));
    }
}

int32_t runTiles(
    LstfeDeformConvParams const&, DeformConvTensors<float> const&, Device const&, int32_t, Split const&, void*)
{
    return LSTFE_NOT_SUPPORTED; // float32 has no tensor cores that keep its precision
}

struct Memory
{
    void* address;
    size_t bytes;
};

template <typename T>
int32_t runDeformConv(
    LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, Memory const& workspace, void* stream)
{
    Device device{};
    cudaError_t const error = currentDevice(device);
    if (error != cudaSuccess)
    {
        return statusOf(error);
    }
    size_t const room = workspace.address == nullptr ? 0 : workspace.bytes;
    Choice const choice = areAligned(t) ? choose(p, device, room) : Choice{LSTFE_SIMPLE, 1};
    if (choice.algorithm != LSTFE_SIMPLE && p.algorithm != LSTFE_SIMPLE)
    {
        Split const split{choice.splits, static_cast<float*>(workspace.address)};
        return runTiles(p, t, device, choice.algorithm, split, stream);
    }
    bool const isSimpleEnough = p.algorithm == LSTFE_AUTO || p.algorithm == LSTFE_SIMPLE;
    return isSimpleEnough ? statusOf(launchSimple(p, t, stream)) : static_cast<int32_t>(LSTFE_NOT_SUPPORTED);
}

template <typename T>
int32_t runSampledSum(LstfeSampledSumParams const& p, SampledSumTensors<T> const& t, void* stream)
{
    return statusOf(fitsRows(p, t) ? launchRows(p, t, stream) : launchSimple(p, t, stream));
}

template <typename T>
DeformConvTensors<T> deformConvTensors(
    void const* features, float const* offsets, float const* mask, void const* weight, float const* bias, void* output)
{
    return {
        static_cast<T const*>(features), offsets, mask, static_cast<T const*>(weight), bias, static_cast<T*>(output)};
}

} // namespace
} // namespace lstfe

using namespace lstfe;

size_t lstfe_deform_conv2d_workspace(LstfeDeformConvParams const* params)
{
    if (checkCall(params) != LSTFE_OK || params->algorithm == LSTFE_SIMPLE || !fitsTiles(*params))
    {
        return 0;
    }
    if (params->splits > 0)
    {
        int32_t const splits = params->splits < numSteps(*params) ? params->splits : numSteps(*params);
        return splits > 1 ? static_cast<size_t>(splits) * bytesPerSplit(*params) : 0;
    }
    // This grows with the map: what is enough for the largest map of a profile is enough for all.
    int32_t const most = mostSplits(*params);
    size_t const bytes = static_cast<size_t>(most) * bytesPerSplit(*params);
    return most < 2 ? 0 : bytes < kMAX_WORKSPACE ? bytes : kMAX_WORKSPACE;
}

int32_t lstfe_deform_conv2d(LstfeDeformConvParams const* params, void const* features, float const* offsets,
    float const* mask, void const* weight, float const* bias, void* output, void* workspace, size_t workspaceBytes,
    void* stream)
{
    int32_t const status = checkCall(params, features, offsets, weight, output);
    if (status != LSTFE_OK)
    {
        return status;
    }
    Memory const memory{workspace, workspaceBytes};
    switch (params->type)
    {
    case LSTFE_FLOAT32:
        return runDeformConv(
            *params, deformConvTensors<float>(features, offsets, mask, weight, bias, output), memory, stream);
    case LSTFE_FLOAT16:
        return runDeformConv(
            *params, deformConvTensors<Half>(features, offsets, mask, weight, bias, output), memory, stream);
    default:
        return runDeformConv(
            *params, deformConvTensors<Bfloat16>(features, offsets, mask, weight, bias, output), memory, stream);
    }
}

int32_t lstfe_sampled_sum(LstfeSampledSumParams const* params, void const* maps, float const* offsets,
    float const* mask, float const* bias, void* output, void* stream)
{
    int32_t const status = checkCall(params, maps, offsets, output);
    if (status != LSTFE_OK)
    {
        return status;
    }
    switch (params->type)
    {
    case LSTFE_FLOAT32:
        return runSampledSum(*params,
            SampledSumTensors<float>{static_cast<float const*>(maps), offsets, mask, bias, static_cast<float*>(output)},
            stream);
    case LSTFE_FLOAT16:
        return runSampledSum(*params,
            SampledSumTensors<Half>{static_cast<Half const*>(maps), offsets, mask, bias, static_cast<Half*>(output)},
            stream);
    default:
        return runSampledSum(*params,
            SampledSumTensors<Bfloat16>{
                static_cast<Bfloat16 const*>(maps), offsets, mask, bias, static_cast<Bfloat16*>(output)},
            stream);
    }
}

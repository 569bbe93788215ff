// The C functions: which kernel does which work, and its launch.
#include "checks.h"
#include "sampled_sum.cuh"
#include "simple.cuh"
#include "tile.cuh"

namespace lstfe
{
namespace
{

constexpr int32_t kMAX_SPLITS = 8;
constexpr int32_t kMIN_STEPS_PER_SPLIT = 8;   //!< Filling the table and the first step must not weigh much.
constexpr int64_t kBLOCKS_PER_MULTIPROCESSOR = 2;
constexpr int32_t kMANY_MULTIPROCESSORS = 132; //!< Workspace is sized for these; on a larger GPU sums are split less.

int32_t statusOf(cudaError_t error)
{
    return error == cudaSuccess ? LSTFE_OK : LSTFE_CUDA_ERROR + static_cast<int32_t>(error);
}

template <typename Shape>
int64_t numTiles(LstfeDeformConvParams const& p)
{
    int64_t const cells = int64_t{p.sampling.batch} * outputHeight(p.sampling) * outputWidth(p.sampling);
    int32_t const groupOuts = p.outChannels / p.groups;
    return (cells + Shape::kCELLS - 1) / Shape::kCELLS * ((groupOuts + Shape::kOUTS - 1) / Shape::kOUTS) * p.groups;
}

//! Whether the tensor-core kernel can do this at all, device and shared memory aside.
bool fitsTiles(LstfeDeformConvParams const& p)
{
    LstfeSampling const& s = p.sampling;
    int32_t const groupChannels = p.channels / p.groups;
    bool const typed = p.layout == LSTFE_NHWC && p.type != LSTFE_FLOAT32 && numTaps(s) <= kTILE_MAX_TAPS;
    bool const vectors = groupChannels % kCHANNEL_VECTOR == 0 && p.outChannels / p.groups % kCHANNEL_VECTOR == 0;
    // A step of 32 channels looks at one offset group.
    bool const whole = s.offsetGroups == 1
        || (groupChannels % kSTEP_CHANNELS == 0 && p.channels / s.offsetGroups % kSTEP_CHANNELS == 0);
    int64_t const cells = int64_t{s.batch} * s.height * s.width;
    int64_t const outCells = int64_t{s.batch} * outputHeight(s) * outputWidth(s);
    return typed && vectors && whole && cells < (int64_t{1} << 29) && outCells < (int64_t{1} << 29);
}

template <typename T>
bool areAligned(DeformConvTensors<T> const& t)
{
    return isAligned(t.features) && isAligned(t.weight) && isAligned(t.output);
}

bool isRunnable(LstfeDeformConvParams const& p, Device const& device, size_t sharedBytes)
{
    bool const typed = p.type != LSTFE_BFLOAT16 || device.isAmpere;
    return typed && sharedBytes <= static_cast<size_t>(device.sharedBytes);
}

size_t sharedBytesOf(int32_t algorithm, int32_t taps)
{
    switch (algorithm)
    {
    case LSTFE_TILE_64X64: return Tile64x64::sharedBytes(taps);
    case LSTFE_TILE_128X128: return Tile128x128::sharedBytes(taps);
    case LSTFE_TILE_128X256: return Tile128x256::sharedBytes(taps);
    default: return 0;
    }
}

int64_t numTilesOf(int32_t algorithm, LstfeDeformConvParams const& p)
{
    switch (algorithm)
    {
    case LSTFE_TILE_64X64: return numTiles<Tile64x64>(p);
    case LSTFE_TILE_128X128: return numTiles<Tile128x128>(p);
    default: return numTiles<Tile128x256>(p);
    }
}

//! The largest tile of which there are enough for every multiprocessor; the smallest where no tile is.
int32_t chooseAlgorithm(LstfeDeformConvParams const& p, Device const& device)
{
    if (p.algorithm != LSTFE_AUTO || !fitsTiles(p))
    {
        return p.algorithm != LSTFE_AUTO ? p.algorithm : LSTFE_SIMPLE;
    }
    for (int32_t algorithm = LSTFE_TILE_128X256; algorithm > LSTFE_SIMPLE; --algorithm)
    {
        bool const enough = numTilesOf(algorithm, p) >= device.multiprocessors || algorithm == LSTFE_TILE_64X64;
        if (enough && isRunnable(p, device, sharedBytesOf(algorithm, numTaps(p.sampling))))
        {
            return algorithm;
        }
    }
    return LSTFE_SIMPLE;
}

int32_t numSteps(LstfeDeformConvParams const& p)
{
    return roundUp(p.channels / p.groups, kSTEP_CHANNELS) / kSTEP_CHANNELS * numTaps(p.sampling);
}

int32_t mostSplits(LstfeDeformConvParams const& p)
{
    int32_t const fair = numSteps(p) / kMIN_STEPS_PER_SPLIT;
    return fair < kMAX_SPLITS ? fair : kMAX_SPLITS;
}

//! How many blocks share a tile's sum: enough for two on every multiprocessor, each with a fair part.
int32_t chooseSplits(LstfeDeformConvParams const& p, int32_t algorithm, int32_t multiprocessors)
{
    if (p.splits > 0)
    {
        return p.splits < numSteps(p) ? p.splits : numSteps(p);
    }
    if (p.algorithm == LSTFE_AUTO && algorithm != LSTFE_TILE_64X64)
    {
        return 1; // chosen because there are enough of them
    }
    int64_t const fill = kBLOCKS_PER_MULTIPROCESSOR * int64_t{multiprocessors} / numTilesOf(algorithm, p);
    int64_t const splits = fill < mostSplits(p) ? fill : mostSplits(p);
    return splits > 1 ? static_cast<int32_t>(splits) : 1;
}

size_t bytesPerSplit(LstfeDeformConvParams const& p)
{
    size_t const cells = static_cast<size_t>(p.sampling.batch) * static_cast<size_t>(outputHeight(p.sampling))
        * static_cast<size_t>(outputWidth(p.sampling));
    return sizeof(float) * cells * static_cast<size_t>(p.outChannels);
}

template <typename T, typename Shape>
cudaError_t launchTile(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, Split const& split, void* stream)
{
    int64_t const cells = int64_t{p.sampling.batch} * outputHeight(p.sampling) * outputWidth(p.sampling);
    int64_t const cellTiles = (cells + Shape::kCELLS - 1) / Shape::kCELLS;
    dim3 const grid(static_cast<uint32_t>(cellTiles), static_cast<uint32_t>(numTiles<Shape>(p) / cellTiles),
        static_cast<uint32_t>(split.count));
    cudaError_t const error = launch(deformConvTile<T, Shape>, grid, Shape::kTHREADS,
        Shape::sharedBytes(numTaps(p.sampling)), stream, p, t, split);
    if (error != cudaSuccess || split.count == 1)
    {
        return error;
    }
    int64_t const pairs = cells * p.outChannels / 2;
    return launch(addSplits<T>, simpleGrid(pairs), kSIMPLE_THREADS, 0, stream, p, t, split, pairs);
}

template <typename T>
int32_t runTiles(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, int32_t algorithm, Split const& split,
    void* stream)
{
    switch (algorithm)
    {
    case LSTFE_TILE_64X64: return statusOf(launchTile<T, Tile64x64>(p, t, split, stream));
    case LSTFE_TILE_128X128: return statusOf(launchTile<T, Tile128x128>(p, t, split, stream));
    default: return statusOf(launchTile<T, Tile128x256>(p, t, split, stream));
    }
}

int32_t runTiles(
    LstfeDeformConvParams const&, DeformConvTensors<float> const&, int32_t, Split const&, void*)
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
    int32_t algorithm = chooseAlgorithm(p, device);
    if (p.algorithm == LSTFE_AUTO && !areAligned(t))
    {
        algorithm = LSTFE_SIMPLE;
    }
    if (algorithm == LSTFE_SIMPLE)
    {
        return statusOf(launchSimple(p, t, stream));
    }
    if (!fitsTiles(p) || !areAligned(t) || !isRunnable(p, device, sharedBytesOf(algorithm, numTaps(p.sampling))))
    {
        return LSTFE_NOT_SUPPORTED;
    }
    Split split{chooseSplits(p, algorithm, device.multiprocessors), static_cast<float*>(workspace.address)};
    int64_t const room = workspace.address == nullptr ? 0 : static_cast<int64_t>(workspace.bytes / bytesPerSplit(p));
    if (split.count > room)
    {
        split.count = room > 1 ? static_cast<int32_t>(room) : 1;
    }
    return runTiles(p, t, algorithm, split, stream);
}

template <typename T>
int32_t runSampledSum(LstfeSampledSumParams const& p, SampledSumTensors<T> const& t, void* stream)
{
    return statusOf(fitsRows(p, t) ? launchRows(p, t, stream) : launchSimple(p, t, stream));
}

template <typename T>
DeformConvTensors<T> deformConvTensors(void const* features, float const* offsets, float const* mask,
    void const* weight, float const* bias, void* output)
{
    return {static_cast<T const*>(features), offsets, mask, static_cast<T const*>(weight), bias,
        static_cast<T*>(output)};
}

} // namespace
} // namespace lstfe

using namespace lstfe;

size_t lstfe_deform_conv2d_workspace(LstfeDeformConvParams const* params)
{
    if (params == nullptr || check(*params) != LSTFE_OK || params->algorithm == LSTFE_SIMPLE || !fitsTiles(*params))
    {
        return 0;
    }
    if (params->splits > 0 || mostSplits(*params) < 2)
    {
        int32_t const splits = chooseSplits(*params, LSTFE_TILE_64X64, 1);
        return splits > 1 ? static_cast<size_t>(splits) * bytesPerSplit(*params) : 0;
    }
    // Splits times cells of a tile row, at most: this grows with the map, so that what is enough for the largest map
    // of a profile is enough for all.
    int32_t const algorithm = params->algorithm == LSTFE_AUTO ? LSTFE_TILE_64X64 : params->algorithm;
    int64_t const cells = static_cast<int64_t>(bytesPerSplit(*params) / sizeof(float)) / params->outChannels;
    int64_t const tileCells = algorithm == LSTFE_TILE_64X64 ? Tile64x64::kCELLS : Tile128x128::kCELLS;
    int64_t const tilesAcross = numTilesOf(algorithm, *params) / ((cells + tileCells - 1) / tileCells);
    int64_t const filled = kBLOCKS_PER_MULTIPROCESSOR * kMANY_MULTIPROCESSORS * tileCells / tilesAcross;
    int64_t const most = mostSplits(*params) * cells;
    return sizeof(float) * static_cast<size_t>((filled < most ? filled : most) * params->outChannels);
}

int32_t lstfe_deform_conv2d(LstfeDeformConvParams const* params, void const* features, float const* offsets,
    float const* mask, void const* weight, float const* bias, void* output, void* workspace, size_t workspaceBytes,
    void* stream)
{
    if (params == nullptr || features == nullptr || offsets == nullptr || weight == nullptr || output == nullptr)
    {
        return LSTFE_NULL_POINTER;
    }
    int32_t const status = check(*params);
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
    if (params == nullptr || maps == nullptr || offsets == nullptr || output == nullptr)
    {
        return LSTFE_NULL_POINTER;
    }
    int32_t const status = check(*params);
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

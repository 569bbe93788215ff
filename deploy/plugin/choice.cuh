// Which tile, and how many blocks share its sum: the choice between them for a shape and a device.
#ifndef LSTFE_CHOICE_CUH
#define LSTFE_CHOICE_CUH

#include "tile.cuh"

namespace lstfe
{

constexpr int32_t kMAX_SPLITS = 8;
constexpr int32_t kMIN_STEPS_PER_SPLIT = 8;
constexpr size_t kMAX_WORKSPACE = size_t{64} << 20;
constexpr int64_t kMAX_GRID_Y = 65535;

struct Choice
{
    int32_t algorithm, splits;
};

//! A tile as numbers.
struct TileSize
{
    int32_t cells, outs;
    size_t sharedBytes;
};

inline TileSize tileSizeOf(int32_t algorithm, int32_t taps)
{
    switch (algorithm)
    {
    case LSTFE_TILE_64X64: return {Tile64x64::kCELLS, Tile64x64::kOUTS, Tile64x64::sharedBytes(taps)};
    case LSTFE_TILE_128X128: return {Tile128x128::kCELLS, Tile128x128::kOUTS, Tile128x128::sharedBytes(taps)};
    default: return {Tile128x256::kCELLS, Tile128x256::kOUTS, Tile128x256::sharedBytes(taps)};
    }
}

inline int64_t numOutCells(LstfeSampling const& s)
{
    return int64_t{s.batch} * outputHeight(s) * outputWidth(s);
}

inline int64_t tilesDown(LstfeDeformConvParams const& p, TileSize const& tile)
{
    return (numOutCells(p.sampling) + tile.cells - 1) / tile.cells;
}

inline int64_t tilesAcross(LstfeDeformConvParams const& p, TileSize const& tile)
{
    return int64_t{(p.outChannels / p.groups + tile.outs - 1) / tile.outs} * p.groups;
}

inline int32_t numSteps(LstfeDeformConvParams const& p)
{
    return roundUp(p.channels / p.groups, kSTEP_CHANNELS) / kSTEP_CHANNELS * numTaps(p.sampling);
}

//! Whether the tensor-core kernel can do this at all, the device aside.
inline bool fitsTiles(LstfeDeformConvParams const& p)
{
    LstfeSampling const& s = p.sampling;
    int32_t const groupChannels = p.channels / p.groups;
    bool const typed = p.layout == LSTFE_NHWC && p.type != LSTFE_FLOAT32 && numTaps(s) <= kTILE_MAX_TAPS;
    bool const vectors = groupChannels % kCHANNEL_VECTOR == 0 && p.outChannels / p.groups % kCHANNEL_VECTOR == 0;
    // A step of 32 channels looks at one offset group.
    bool const whole = s.offsetGroups == 1
        || (groupChannels % kSTEP_CHANNELS == 0 && p.channels / s.offsetGroups % kSTEP_CHANNELS == 0);
    int64_t const cells = int64_t{s.batch} * s.height * s.width;
    bool const small = cells < (int64_t{1} << 29) && numOutCells(s) < (int64_t{1} << 29)
        && tilesAcross(p, tileSizeOf(LSTFE_TILE_64X64, 1)) <= kMAX_GRID_Y;
    return typed && vectors && whole && small;
}

inline bool runsOn(Device const& device, LstfeDeformConvParams const& p, int32_t algorithm)
{
    bool const typed = p.type != LSTFE_BFLOAT16 || device.isAmpere;
    return typed && tileSizeOf(algorithm, numTaps(p.sampling)).sharedBytes <= static_cast<size_t>(device.sharedBytes);
}

inline size_t bytesPerSplit(LstfeDeformConvParams const& p)
{
    return sizeof(float) * static_cast<size_t>(numOutCells(p.sampling)) * static_cast<size_t>(p.outChannels);
}

inline int32_t mostSplits(LstfeDeformConvParams const& p)
{
    int32_t const fair = numSteps(p) / kMIN_STEPS_PER_SPLIT;
    return fair < 1 ? 1 : fair < kMAX_SPLITS ? fair : kMAX_SPLITS;
}

//! Work of the busiest multiprocessor, in multiply-adds of 32 channels. The weights are arithmetic on instruction
//! counts, not measurements: blending a sample costs about what 96 outputs of it cost, filling the table 8 steps,
//! writing and adding a partial sum 20, and a second launch as much as 200,000.
inline int64_t costOf(LstfeDeformConvParams const& p, Device const& device, Choice const& choice)
{
    TileSize const tile = tileSizeOf(choice.algorithm, numTaps(p.sampling));
    int64_t const blocks = tilesDown(p, tile) * tilesAcross(p, tile) * choice.splits;
    int64_t const rounds = (blocks + device.multiprocessors - 1) / device.multiprocessors;
    int64_t const steps = (numSteps(p) + choice.splits - 1) / choice.splits + 8;
    int64_t const cost = rounds * steps * tile.cells * (tile.outs + 96);
    int64_t const sums = numOutCells(p.sampling) * p.outChannels * choice.splits;
    return choice.splits == 1 ? cost : cost + 20 * sums / device.multiprocessors + 200000;
}

//! The cheapest choice, within what the caller prescribes and the workspace has room for.
inline Choice choose(LstfeDeformConvParams const& p, Device const& device, size_t workspaceBytes)
{
    Choice best{LSTFE_SIMPLE, 1};
    int64_t const room = static_cast<int64_t>(workspaceBytes / bytesPerSplit(p));
    int64_t const wished = p.splits > 0 ? (p.splits < numSteps(p) ? p.splits : numSteps(p)) : mostSplits(p);
    int32_t const most = static_cast<int32_t>(room < 2 ? 1 : wished < room ? wished : room);
    int64_t least = 0;
    for (int32_t algorithm = LSTFE_TILE_128X256; algorithm > LSTFE_SIMPLE && fitsTiles(p); --algorithm)
    {
        bool const wanted = p.algorithm == LSTFE_AUTO || p.algorithm == algorithm;
        for (int32_t splits = p.splits > 0 ? most : 1; splits <= most && wanted && runsOn(device, p, algorithm); ++splits)
        {
            int64_t const cost = costOf(p, device, {algorithm, splits});
            if (best.algorithm == LSTFE_SIMPLE || cost < least)
            {
                best = {algorithm, splits};
                least = cost;
            }
        }
    }
    return best;
}

} // namespace lstfe

#endif // LSTFE_CHOICE_CUH

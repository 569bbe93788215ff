// Deformable convolution on tensor cores: channels last, 16-bit elements, no column buffer in global memory.
//
// The convolution is a matrix product: rows are output cells, columns output channels, and the sum runs over (channel,
// tap). A block owns a tile of cells x output channels. It computes corners and weights of all taps of its cells once,
// in float32, and keeps them in shared memory, where all channels use them. Then it goes through the sum in steps of
// 32 channels of one tap, channel blocks outside, taps inside, so that the rows that neighbouring taps share are still
// in the cache. While the tensor cores work on one step, the next one's samples are on their way to registers and its
// weights to shared memory. Samples are blended in float32 and rounded once, to the element type; sums are float32.
//
// With few tiles, several blocks share one tile's sum (`splits`): each writes a partial sum, a second kernel adds them
// in a fixed order, so that results do not vary from run to run.
#ifndef LSTFE_TILE_CUH
#define LSTFE_TILE_CUH

#include "device.cuh"

namespace lstfe
{

constexpr int32_t kSTEP_CHANNELS = 32;
constexpr int32_t kROW_ELEMENTS = kSTEP_CHANNELS + 8; //!< 8 more, so that 8 rows of a matrix lie in different banks.
constexpr int32_t kSTEP_VECTORS = kSTEP_CHANNELS / kCHANNEL_VECTOR;
constexpr int32_t kTILE_MAX_TAPS = 9;

//! A block's tile and how its warps share it.
template <int32_t kCELLS_, int32_t kOUTS_, int32_t kWARPS_DOWN_, int32_t kWARPS_ACROSS_>
struct TileShape
{
    static constexpr int32_t kCELLS = kCELLS_;
    static constexpr int32_t kOUTS = kOUTS_;
    static constexpr int32_t kWARPS_ACROSS = kWARPS_ACROSS_;
    static constexpr int32_t kTHREADS = 32 * kWARPS_DOWN_ * kWARPS_ACROSS_;
    static constexpr int32_t kWARP_CELLS = kCELLS / kWARPS_DOWN_;
    static constexpr int32_t kWARP_OUTS = kOUTS / kWARPS_ACROSS_;
    static constexpr int32_t kSAMPLES = kCELLS * kSTEP_VECTORS / kTHREADS; //!< Vectors a thread blends in a step.
    static constexpr int32_t kWEIGHTS = kOUTS * kSTEP_VECTORS / kTHREADS;  //!< Vectors a thread copies in a step.
    static constexpr size_t kSTAGE_BYTES = size_t{2} * (kCELLS + kOUTS) * kROW_ELEMENTS;
    static_assert(kWARP_CELLS % 16 == 0 && kWARP_OUTS % 16 == 0, "whole matrices");
    static_assert(kSAMPLES * kTHREADS == kCELLS * kSTEP_VECTORS && kWEIGHTS * kTHREADS == kOUTS * kSTEP_VECTORS,
        "threads share the work evenly");

    //! Two stages, and for each tap and cell four weights and an origin.
    static constexpr size_t sharedBytes(int32_t taps)
    {
        return 2 * kSTAGE_BYTES + size_t{sizeof(float4) + sizeof(int32_t)} * kCELLS * static_cast<size_t>(taps);
    }
};

using Tile64x64 = TileShape<64, 64, 2, 2>;
using Tile128x128 = TileShape<128, 128, 2, 4>;
using Tile128x256 = TileShape<128, 256, 2, 4>;

//! How the sum is shared: split z takes its part of the steps, and writes to `partial` if there is more than one.
struct Split
{
    int32_t count;
    float* partial; //!< count x cells x output channels.
};

template <typename T, typename Shape>
struct TileBlock
{
    LstfeDeformConvParams const& p;
    DeformConvTensors<T> const& t;
    int32_t taps, outCells, allCells; //!< allCells: of all images.
    int32_t groupChannels, groupOuts, rowChannels;
    int32_t group, firstCell, firstOut; //!< firstOut counts within the group.
    int32_t thread, lane, warpCell, warpOut;
    float4* weights;  //!< [taps][kCELLS] of the four corners.
    int32_t* origins; //!< [taps][kCELLS] 4 * top left cell + 2 * (lower row differs) + (right column differs), or -1.
    T* stages;
    int32_t tap; //!< Of the step being fetched.
    uint4 rows[Shape::kSAMPLES][4];
    float sums[Shape::kWARP_CELLS / 16][Shape::kWARP_OUTS / 8][4];

    __device__ __forceinline__ TileBlock(LstfeDeformConvParams const& params, DeformConvTensors<T> const& tensors)
        : p(params)
        , t(tensors)
    {
        taps = numTaps(p.sampling);
        outCells = outputHeight(p.sampling) * outputWidth(p.sampling);
        allCells = p.sampling.batch * outCells;
        groupChannels = p.channels / p.groups;
        groupOuts = p.outChannels / p.groups;
        rowChannels = p.channels;
        int32_t const tilesPerGroup = (groupOuts + Shape::kOUTS - 1) / Shape::kOUTS;
        group = static_cast<int32_t>(blockIdx.y) / tilesPerGroup;
        firstOut = static_cast<int32_t>(blockIdx.y) % tilesPerGroup * Shape::kOUTS;
        firstCell = static_cast<int32_t>(blockIdx.x) * Shape::kCELLS;
        thread = static_cast<int32_t>(threadIdx.x);
        lane = thread % 32;
        warpCell = thread / 32 / Shape::kWARPS_ACROSS * Shape::kWARP_CELLS;
        warpOut = thread / 32 % Shape::kWARPS_ACROSS * Shape::kWARP_OUTS;
        uint8_t* const shared = dynamicSharedMemory();
        weights = reinterpret_cast<float4*>(shared);
        stages = reinterpret_cast<T*>(weights + taps * Shape::kCELLS);
        origins = reinterpret_cast<int32_t*>(shared + sizeof(float4) * taps * Shape::kCELLS + 2 * Shape::kSTAGE_BYTES);
#pragma unroll
        for (auto& down : sums)
        {
#pragma unroll
            for (auto& tile : down)
            {
                tile[0] = tile[1] = tile[2] = tile[3] = 0.F;
            }
        }
    }

    __device__ __forceinline__ T* samplesOf(int32_t stage) const
    {
        return stages + stage * (Shape::kCELLS + Shape::kOUTS) * kROW_ELEMENTS;
    }

    __device__ __forceinline__ T* weightsOf(int32_t stage) const
    {
        return samplesOf(stage) + Shape::kCELLS * kROW_ELEMENTS;
    }

    //! First channel of a step, within the group.
    __device__ __forceinline__ int32_t channelOf(int32_t step) const { return step / taps * kSTEP_CHANNELS; }

    __device__ __forceinline__ int32_t offsetGroupOf(int32_t step) const
    {
        return (group * groupChannels + channelOf(step)) / (p.channels / p.sampling.offsetGroups);
    }

    //! Computes where all taps of the block's cells look.
    __device__ __forceinline__ void fillTable(int32_t offsetGroup)
    {
        for (int32_t i = thread; i < taps * Shape::kCELLS; i += Shape::kTHREADS)
        {
            int32_t const cell = firstCell + i % Shape::kCELLS;
            Corners corners{};
            int32_t image = 0;
            if (cell < allCells)
            {
                image = cell / outCells;
                corners = cornersOfTap(
                    p.sampling, t.offsets, t.mask, image, offsetGroup, i / Shape::kCELLS, cell % outCells);
            }
            int32_t const origin = image * p.sampling.height * p.sampling.width + corners.cell[0];
            int32_t const down = corners.cell[2] != corners.cell[0] ? 2 : 0;
            int32_t const right = corners.cell[1] != corners.cell[0] ? 1 : 0;
            bool const isSeen = corners.weight[0] != 0.F || corners.weight[1] != 0.F || corners.weight[2] != 0.F
                || corners.weight[3] != 0.F;
            origins[i] = isSeen ? 4 * origin + down + right : -1; // what is not looked at may hold anything
            weights[i] = make_float4(corners.weight[0], corners.weight[1], corners.weight[2], corners.weight[3]);
        }
    }

    //! Starts loading a step: rows of the feature map to registers, weights to a stage.
    __device__ __forceinline__ void fetch(int32_t step, int32_t stage)
    {
        tap = step % taps;
        int32_t const channel = channelOf(step);
#pragma unroll
        for (int32_t i = 0; i < Shape::kSAMPLES; ++i)
        {
            int32_t const vector = thread + i * Shape::kTHREADS;
            fetchRows(rows[i], origins[tap * Shape::kCELLS + vector / kSTEP_VECTORS],
                channel + vector % kSTEP_VECTORS * kCHANNEL_VECTOR);
        }
#pragma unroll
        for (int32_t i = 0; i < Shape::kWEIGHTS; ++i)
        {
            int32_t const vector = thread + i * Shape::kTHREADS;
            int32_t const row = vector / kSTEP_VECTORS;
            int32_t const column = vector % kSTEP_VECTORS * kCHANNEL_VECTOR;
            int32_t const out = firstOut + row;
            bool const valid = out < groupOuts && channel + column < groupChannels;
            int64_t const index = (static_cast<int64_t>(group * groupOuts + out) * taps + tap) * groupChannels;
            startCopy16(weightsOf(stage) + row * kROW_ELEMENTS + column,
                valid ? t.weight + index + channel + column : t.weight, valid);
        }
    }

    __device__ __forceinline__ void fetchRows(uint4 (&corners)[4], int32_t origin, int32_t channel) const
    {
        if (channel >= groupChannels || origin < 0)
        {
            corners[0] = corners[1] = corners[2] = corners[3] = zeroVector();
            return;
        }
        T const* const top
            = t.features + static_cast<int64_t>(origin >> 2) * rowChannels + group * groupChannels + channel;
        T const* const bottom = top + ((origin & 2) != 0 ? static_cast<int64_t>(p.sampling.width) * rowChannels : 0);
        int32_t const right = (origin & 1) != 0 ? rowChannels : 0;
        corners[0] = __ldg(reinterpret_cast<uint4 const*>(top));
        corners[1] = __ldg(reinterpret_cast<uint4 const*>(top + right));
        corners[2] = __ldg(reinterpret_cast<uint4 const*>(bottom));
        corners[3] = __ldg(reinterpret_cast<uint4 const*>(bottom + right));
    }

    //! Blends what `fetch` loaded and puts it into a stage.
    __device__ __forceinline__ void blendInto(int32_t stage)
    {
#pragma unroll
        for (int32_t i = 0; i < Shape::kSAMPLES; ++i)
        {
            int32_t const vector = thread + i * Shape::kTHREADS;
            int32_t const row = vector / kSTEP_VECTORS;
            float4 const scale = weights[tap * Shape::kCELLS + row];
            uint4 const blended = make_uint4(blendPair(rows[i][0].x, rows[i][1].x, rows[i][2].x, rows[i][3].x, scale),
                blendPair(rows[i][0].y, rows[i][1].y, rows[i][2].y, rows[i][3].y, scale),
                blendPair(rows[i][0].z, rows[i][1].z, rows[i][2].z, rows[i][3].z, scale),
                blendPair(rows[i][0].w, rows[i][1].w, rows[i][2].w, rows[i][3].w, scale));
            T* const target = samplesOf(stage) + row * kROW_ELEMENTS + vector % kSTEP_VECTORS * kCHANNEL_VECTOR;
            *reinterpret_cast<uint4*>(target) = blended;
        }
        waitForCopies();
    }

    __device__ __forceinline__ static uint32_t blendPair(
        uint32_t a, uint32_t b, uint32_t c, uint32_t d, float4 const& scale)
    {
        float2 const p0 = Packed<T>::unpack(a);
        float2 const p1 = Packed<T>::unpack(b);
        float2 const p2 = Packed<T>::unpack(c);
        float2 const p3 = Packed<T>::unpack(d);
        return Packed<T>::pack(scale.x * p0.x + scale.y * p1.x + scale.z * p2.x + scale.w * p3.x,
            scale.x * p0.y + scale.y * p1.y + scale.z * p2.y + scale.w * p3.y);
    }

    //! Multiplies a stage's samples and weights on the tensor cores.
    __device__ __forceinline__ void multiply(int32_t stage)
    {
        constexpr int32_t kDOWN = Shape::kWARP_CELLS / 16;
        constexpr int32_t kACROSS = Shape::kWARP_OUTS / 16;
        T const* const a = samplesOf(stage) + (warpCell + lane % 16) * kROW_ELEMENTS + lane / 16 * 8;
        T const* const b = weightsOf(stage) + (warpOut + lane / 16 * 8 + lane % 8) * kROW_ELEMENTS + lane / 8 % 2 * 8;
#pragma unroll
        for (int32_t k = 0; k < kSTEP_CHANNELS; k += 16)
        {
            uint32_t left[kDOWN][4];
            uint32_t right[kACROSS][4];
#pragma unroll
            for (int32_t i = 0; i < kDOWN; ++i)
            {
                loadMatrices(left[i], a + i * 16 * kROW_ELEMENTS + k);
            }
#pragma unroll
            for (int32_t j = 0; j < kACROSS; ++j)
            {
                loadMatrices(right[j], b + j * 16 * kROW_ELEMENTS + k);
            }
#pragma unroll
            for (int32_t i = 0; i < kDOWN; ++i)
            {
#pragma unroll
                for (int32_t j = 0; j < kACROSS; ++j)
                {
                    multiplyTiles<T>(sums[i][2 * j], left[i], right[j][0], right[j][1]);
                    multiplyTiles<T>(sums[i][2 * j + 1], left[i], right[j][2], right[j][3]);
                }
            }
        }
    }

    //! Goes through steps `begin` .. `end` of the sum.
    __device__ __forceinline__ void accumulate(int32_t begin, int32_t end)
    {
        fillTable(offsetGroupOf(begin));
        __syncthreads();
        fetch(begin, 0);
        blendInto(0);
        __syncthreads();
        for (int32_t step = begin; step < end; ++step)
        {
            int32_t const stage = (step - begin) % 2;
            // The last step is fetched twice: without a branch here, blending can go on while tensor cores multiply.
            int32_t const next = step + 1 < end ? step + 1 : step;
            if (offsetGroupOf(next) != offsetGroupOf(step))
            {
                fillTable(offsetGroupOf(next)); // nobody reads the table between the barrier and here
                __syncthreads();
            }
            fetch(next, 1 - stage);
            multiply(stage);
            blendInto(1 - stage);
            __syncthreads();
        }
    }

    //! Hands each pair of neighbouring output channels of a cell to `write(cell, channel, first, second)`.
    template <typename Write>
    __device__ __forceinline__ void forEachPair(Write const& write) const
    {
#pragma unroll
        for (int32_t i = 0; i < Shape::kWARP_CELLS / 16; ++i)
        {
#pragma unroll
            for (int32_t j = 0; j < Shape::kWARP_OUTS / 8; ++j)
            {
                int32_t const out = firstOut + warpOut + j * 8 + lane % 4 * 2;
#pragma unroll
                for (int32_t half = 0; half < 2; ++half)
                {
                    int32_t const cell = firstCell + warpCell + i * 16 + half * 8 + lane / 4;
                    if (cell < allCells && out < groupOuts)
                    {
                        write(cell, group * groupOuts + out, sums[i][j][2 * half], sums[i][j][2 * half + 1]);
                    }
                }
            }
        }
    }
};

//! Bias, ReLU and rounding of two neighbouring output channels.
template <typename T>
__device__ __forceinline__ void storePair(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, int64_t cell,
    int32_t channel, float first, float second)
{
    if (t.bias != nullptr)
    {
        first += t.bias[channel];
        second += t.bias[channel + 1];
    }
    if (p.relu != 0)
    {
        first = first < 0.F ? 0.F : first;
        second = second < 0.F ? 0.F : second;
    }
    *reinterpret_cast<uint32_t*>(t.output + cell * p.outChannels + channel) = Packed<T>::pack(first, second);
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kTHREADS)
    deformConvTile(LstfeDeformConvParams p, DeformConvTensors<T> t, Split split)
{
    TileBlock<T, Shape> block(p, t);
    int32_t const steps = roundUp(block.groupChannels, kSTEP_CHANNELS) / kSTEP_CHANNELS * block.taps;
    int32_t const part = static_cast<int32_t>(blockIdx.z);
    block.accumulate(steps * part / split.count, steps * (part + 1) / split.count);
    if (split.count == 1)
    {
        block.forEachPair([&](int32_t cell, int32_t channel, float first, float second)
            { storePair(p, t, cell, channel, first, second); });
        return;
    }
    float* const partial = split.partial + static_cast<int64_t>(part) * block.allCells * p.outChannels;
    block.forEachPair(
        [&](int32_t cell, int32_t channel, float first, float second)
        {
            float* const target = partial + static_cast<int64_t>(cell) * p.outChannels + channel;
            *reinterpret_cast<float2*>(target) = make_float2(first, second);
        });
}

//! Adds the partial sums, in their order.
template <typename T>
__global__ void addSplits(LstfeDeformConvParams p, DeformConvTensors<T> t, Split split, int64_t numPairs)
{
    int64_t const step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < numPairs; i += step)
    {
        float2 sum = make_float2(0.F, 0.F);
        for (int32_t part = 0; part < split.count; ++part)
        {
            float2 const added = reinterpret_cast<float2 const*>(split.partial)[part * numPairs + i];
            sum.x += added.x;
            sum.y += added.y;
        }
        int64_t const pairsPerCell = p.outChannels / 2;
        storePair(p, t, i / pairsPerCell, static_cast<int32_t>(i % pairsPerCell) * 2, sum.x, sum.y);
    }
}

} // namespace lstfe

#endif // LSTFE_TILE_CUH

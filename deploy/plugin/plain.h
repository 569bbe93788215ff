// The two operators written plainly, for any element type and layout: the bodies of the simple kernels and of the
// host references. Sums are float32 whatever the elements are.
#ifndef LSTFE_PLAIN_H
#define LSTFE_PLAIN_H

#include "sampling.h"

namespace lstfe
{

constexpr int32_t kCHANNEL_VECTOR = 8;     //!< NHWC pads channels to a multiple of this.
constexpr int32_t kOUTPUTS_PER_THREAD = 8; //!< Output channels for which one sample is used while at hand.

//! Conversion between a stored element and float; specialised where the element types are known.
template <typename T>
struct Element;

template <>
struct Element<float>
{
    LSTFE_HD static float load(float const* address) { return *address; }
    LSTFE_HD static void store(float* address, float value) { *address = value; }
};

//! Distances in elements between neighbours in a tensor of images.
struct Strides
{
    int64_t image, channel, cell;
};

LSTFE_HD Strides stridesOf(int32_t layout, int32_t channels, int64_t cells)
{
    if (layout == LSTFE_NCHW)
    {
        return Strides{channels * cells, cells, 1};
    }
    int64_t const row = roundUp(channels, kCHANNEL_VECTOR);
    return Strides{row * cells, 1, row};
}

template <typename T>
LSTFE_HD float blend(T const* channel, int64_t cellStride, Corners const& corners)
{
    float sum = 0.F;
    for (int32_t i = 0; i < 4; ++i)
    {
        if (corners.weight[i] != 0.F) // what is not looked at may hold anything, infinity included
        {
            sum += corners.weight[i] * Element<T>::load(channel + corners.cell[i] * cellStride);
        }
    }
    return sum;
}

template <typename T>
struct DeformConvTensors
{
    T const* features;
    float const* offsets;
    float const* mask; //!< Or null.
    T const* weight;
    float const* bias; //!< Or null.
    T* output;
};

//! How many independent pieces a deformable convolution is cut into: images x groups of output channels x cells.
LSTFE_HD int64_t numDeformConvPieces(LstfeDeformConvParams const& p)
{
    int32_t const chunks = roundUp(p.outChannels / p.groups, kOUTPUTS_PER_THREAD) / kOUTPUTS_PER_THREAD;
    return static_cast<int64_t>(p.sampling.batch) * p.groups * chunks * outputHeight(p.sampling)
        * outputWidth(p.sampling);
}

//! Adds one tap of one cell to `sums`, the output channels `firstOut` .. + count.
template <typename T>
LSTFE_HD void addTap(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, int32_t image, int32_t outCell,
    int32_t tap, int32_t firstOut, int32_t count, float* sums)
{
    LstfeSampling const& s = p.sampling;
    int32_t const groupChannels = p.channels / p.groups;
    int32_t const firstChannel = firstOut / (p.outChannels / p.groups) * groupChannels;
    int32_t const channelsPerOffset = p.channels / s.offsetGroups;
    Strides const in = stridesOf(p.layout, p.channels, static_cast<int64_t>(s.height) * s.width);
    Strides const w = stridesOf(p.layout, groupChannels, numTaps(s)); // "image" is the output channel, "cell" the tap
    Corners corners{};
    for (int32_t c = 0; c < groupChannels; ++c)
    {
        int32_t const channel = firstChannel + c;
        if (c == 0 || channel % channelsPerOffset == 0)
        {
            corners = cornersOfTap(s, t.offsets, t.mask, image, channel / channelsPerOffset, tap, outCell);
        }
        float const sample = blend(t.features + image * in.image + channel * in.channel, in.cell, corners);
        for (int32_t k = 0; k < count; ++k)
        {
            sums[k] += sample * Element<T>::load(t.weight + (firstOut + k) * w.image + c * w.channel + tap * w.cell);
        }
    }
}

//! Computes piece number `piece`: up to 8 output channels of one cell.
template <typename T>
LSTFE_HD void deformConvPiece(LstfeDeformConvParams const& p, DeformConvTensors<T> const& t, int64_t piece)
{
    int32_t const outCells = outputHeight(p.sampling) * outputWidth(p.sampling);
    int32_t const groupOuts = p.outChannels / p.groups;
    int32_t const chunksPerGroup = roundUp(groupOuts, kOUTPUTS_PER_THREAD) / kOUTPUTS_PER_THREAD;
    int32_t const chunks = chunksPerGroup * p.groups;
    // Neighbouring threads write neighbouring elements.
    bool const cellsFirst = p.layout == LSTFE_NCHW;
    int32_t const outCell = static_cast<int32_t>(cellsFirst ? piece % outCells : piece / chunks % outCells);
    int32_t const chunk = static_cast<int32_t>(cellsFirst ? piece / outCells % chunks : piece % chunks);
    int32_t const image = static_cast<int32_t>(piece / outCells / chunks);
    int32_t const group = chunk / chunksPerGroup;
    int32_t const begin = chunk % chunksPerGroup * kOUTPUTS_PER_THREAD;
    int32_t const firstOut = group * groupOuts + begin;
    int32_t const count = groupOuts - begin < kOUTPUTS_PER_THREAD ? groupOuts - begin : kOUTPUTS_PER_THREAD;
    float sums[kOUTPUTS_PER_THREAD] = {};
    for (int32_t tap = 0; tap < numTaps(p.sampling); ++tap)
    {
        addTap(p, t, image, outCell, tap, firstOut, count, sums);
    }
    Strides const out = stridesOf(p.layout, p.outChannels, outCells);
    T* const cell = t.output + image * out.image + outCell * out.cell;
    for (int32_t k = 0; k < count; ++k)
    {
        float const sum = sums[k] + (t.bias == nullptr ? 0.F : t.bias[firstOut + k]);
        Element<T>::store(cell + (firstOut + k) * out.channel, p.relu != 0 && sum < 0.F ? 0.F : sum);
    }
    if (p.layout == LSTFE_NHWC && chunk == chunks - 1) // readers of kHWC8 may look at the padding
    {
        for (int32_t k = p.outChannels; k < roundUp(p.outChannels, kCHANNEL_VECTOR); ++k)
        {
            Element<T>::store(cell + k, 0.F);
        }
    }
}

template <typename T>
struct SampledSumTensors
{
    T const* maps; //!< A row of K * C elements a cell, without padding.
    float const* offsets;
    float const* mask; //!< Or null.
    float const* bias; //!< Or null.
    T* output;
};

//! Elements between neighbouring cells of the maps.
LSTFE_HD int64_t mapRow(LstfeSampledSumParams const& p)
{
    return static_cast<int64_t>(numTaps(p.sampling)) * p.channels;
}

//! Elements between the maps of neighbouring images.
LSTFE_HD int64_t mapImage(LstfeSampledSumParams const& p)
{
    return static_cast<int64_t>(p.sampling.height) * p.sampling.width * mapRow(p);
}

//! Output channels with padding, which is written too.
LSTFE_HD int32_t storedChannels(LstfeSampledSumParams const& p)
{
    return p.layout == LSTFE_NHWC ? roundUp(p.channels, kCHANNEL_VECTOR) : p.channels;
}

LSTFE_HD int64_t numSampledSumPieces(LstfeSampledSumParams const& p)
{
    return static_cast<int64_t>(p.sampling.batch) * storedChannels(p) * outputHeight(p.sampling)
        * outputWidth(p.sampling);
}

//! Computes piece number `piece`: one channel of one cell.
template <typename T>
LSTFE_HD void sampledSumPiece(LstfeSampledSumParams const& p, SampledSumTensors<T> const& t, int64_t piece)
{
    int32_t const outCells = outputHeight(p.sampling) * outputWidth(p.sampling);
    int32_t const channels = storedChannels(p);
    bool const cellsFirst = p.layout == LSTFE_NCHW;
    int32_t const outCell = static_cast<int32_t>(cellsFirst ? piece % outCells : piece / channels % outCells);
    int32_t const channel = static_cast<int32_t>(cellsFirst ? piece / outCells % channels : piece % channels);
    int32_t const image = static_cast<int32_t>(piece / outCells / channels);
    Strides const out = stridesOf(p.layout, p.channels, outCells);
    float sum = t.bias == nullptr || channel >= p.channels ? 0.F : t.bias[channel];
    for (int32_t tap = 0; tap < numTaps(p.sampling) && channel < p.channels; ++tap)
    {
        Corners const corners = cornersOfTap(p.sampling, t.offsets, t.mask, image, 0, tap, outCell);
        sum += blend(t.maps + image * mapImage(p) + tap * p.channels + channel, mapRow(p), corners);
    }
    T* const target = t.output + image * out.image + outCell * out.cell + channel * out.channel;
    Element<T>::store(target, p.relu != 0 && sum < 0.F ? 0.F : sum);
}

} // namespace lstfe

#endif // LSTFE_PLAIN_H

// Index and weight arithmetic of deformable sampling, one source for host and device. Coordinates are always float32.
//
// A sample is read between four cells. Outside the map there is zero: a sample less than one cell outside still sees
// the border cells beside it (torchvision's rule), one further out sees nothing, and neither does one at NaN.
#ifndef LSTFE_SAMPLING_H
#define LSTFE_SAMPLING_H

#include "host_device.h"
#include "lstfe_plugin.h"

#include <cmath>
#include <cstdint>

namespace lstfe
{

//! The four cells around a sampling point, top left to bottom right, as indices into an H x W map, with their weights.
//! Cells are always inside the map; the weight of one that would not be is zero.
struct Corners
{
    int32_t cell[4];
    float weight[4];
};

LSTFE_HD int32_t outputSize(
    int32_t size, int32_t kernel, int32_t stride, int32_t padBegin, int32_t padEnd, int32_t dilation)
{
    int32_t const span = size + padBegin + padEnd - dilation * (kernel - 1) - 1;
    return span < 0 ? 0 : span / stride + 1;
}

LSTFE_HD int32_t outputHeight(LstfeSampling const& s)
{
    return outputSize(s.height, s.kernelHeight, s.strideY, s.padTop, s.padBottom, s.dilationY);
}

LSTFE_HD int32_t outputWidth(LstfeSampling const& s)
{
    return outputSize(s.width, s.kernelWidth, s.strideX, s.padLeft, s.padRight, s.dilationX);
}

LSTFE_HD int32_t numTaps(LstfeSampling const& s)
{
    return s.kernelHeight * s.kernelWidth;
}

LSTFE_HD int32_t roundUp(int32_t value, int32_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

LSTFE_HD Corners cornersAt(float y, float x, int32_t height, int32_t width)
{
    bool const near = y > -1.F && y < static_cast<float>(height) && x > -1.F && x < static_cast<float>(width);
    if (!near) // also NaN, whose conversion to an integer would be undefined
    {
        return Corners{{0, 0, 0, 0}, {0.F, 0.F, 0.F, 0.F}};
    }
    float const floorY = floorf(y);
    float const floorX = floorf(x);
    int32_t const top = static_cast<int32_t>(floorY); // -1 .. height - 1
    int32_t const left = static_cast<int32_t>(floorX);
    float const below = top + 1 < height ? y - floorY : 0.F;
    float const right = left + 1 < width ? x - floorX : 0.F;
    float const above = top >= 0 ? 1.F - (y - floorY) : 0.F;
    float const before = left >= 0 ? 1.F - (x - floorX) : 0.F;
    int32_t const row0 = (top >= 0 ? top : 0) * width;
    int32_t const row1 = (top + 1 < height ? top + 1 : height - 1) * width;
    int32_t const column0 = left >= 0 ? left : 0;
    int32_t const column1 = left + 1 < width ? left + 1 : width - 1;
    return Corners{{row0 + column0, row0 + column1, row1 + column0, row1 + column1},
        {above * before, above * right, below * before, below * right}};
}

//! Corners of one tap at one output cell, the mask multiplied into the weights. `outCell` is y * w + x.
LSTFE_HD Corners cornersOfTap(LstfeSampling const& s, float const* offsets, float const* mask, int32_t image,
    int32_t offsetGroup, int32_t tap, int32_t outCell)
{
    int32_t const outWidth = outputWidth(s);
    int64_t const outCells = static_cast<int64_t>(outputHeight(s)) * outWidth;
    int64_t const plane = (static_cast<int64_t>(image) * s.offsetGroups + offsetGroup) * numTaps(s) + tap;
    float const dy = offsets[2 * plane * outCells + outCell];
    float const dx = offsets[(2 * plane + 1) * outCells + outCell];
    int32_t const gridY = outCell / outWidth * s.strideY - s.padTop + tap / s.kernelWidth * s.dilationY;
    int32_t const gridX = outCell % outWidth * s.strideX - s.padLeft + tap % s.kernelWidth * s.dilationX;
    Corners corners = cornersAt(static_cast<float>(gridY) + dy, static_cast<float>(gridX) + dx, s.height, s.width);
    if (mask != nullptr)
    {
        float const modulation = mask[plane * outCells + outCell];
        for (float& weight : corners.weight)
        {
            weight *= modulation;
        }
    }
    return corners;
}

} // namespace lstfe

#endif // LSTFE_SAMPLING_H

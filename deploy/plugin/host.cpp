// What needs no GPU of the deformable convolutions: checks of the parameters, texts, and the host references.
#include "checks.h"
#include "plain.h"

namespace lstfe
{
namespace
{

// Limits that keep every 32-bit index in range.
constexpr int32_t kMAX_SIZE = 1 << 20;
constexpr int32_t kMAX_TAPS = 1 << 10;
constexpr int64_t kMAX_CELLS = int64_t{1} << 30;
constexpr int32_t kMAX_GIVEN_SPLITS = 1 << 10;

template <size_t kCount>
bool areAtMost(int32_t limit, int32_t const (&values)[kCount])
{
    for (int32_t const value : values)
    {
        if (value > limit)
        {
            return false;
        }
    }
    return true;
}

bool isSmallEnough(LstfeSampling const& s)
{
    bool const sides = areAtMost(kMAX_SIZE,
        {s.batch, s.height, s.width, s.strideY, s.strideX, s.padTop, s.padLeft, s.padBottom, s.padRight,
            s.offsetGroups});
    bool const kernel = areAtMost(kMAX_TAPS, {s.kernelHeight, s.kernelWidth, s.dilationY, s.dilationX});
    return sides && kernel && numTaps(s) <= kMAX_TAPS && int64_t{s.height} * s.width <= kMAX_CELLS
        && int64_t{outputHeight(s)} * outputWidth(s) <= kMAX_CELLS;
}

bool isSound(LstfeSampling const& s)
{
    bool const positive = s.batch > 0 && s.height > 0 && s.width > 0 && s.kernelHeight > 0 && s.kernelWidth > 0
        && s.strideY > 0 && s.strideX > 0 && s.dilationY > 0 && s.dilationX > 0 && s.offsetGroups > 0;
    bool const padded = s.padTop >= 0 && s.padLeft >= 0 && s.padBottom >= 0 && s.padRight >= 0;
    return positive && padded && isSmallEnough(s) && outputHeight(s) > 0 && outputWidth(s) > 0;
}

bool isIn(int32_t value, int32_t last)
{
    return value >= 0 && value <= last;
}

} // namespace

int32_t check(LstfeDeformConvParams const& p)
{
    bool const sized = isSound(p.sampling) && p.channels > 0 && p.outChannels > 0 && p.groups > 0;
    if (!sized || !areAtMost(kMAX_SIZE, {p.channels, p.outChannels}) || p.channels % p.groups != 0
        || p.outChannels % p.groups != 0 || p.channels % p.sampling.offsetGroups != 0 || !isIn(p.splits, kMAX_GIVEN_SPLITS)
        || !isIn(p.type, LSTFE_BFLOAT16) || !isIn(p.layout, LSTFE_NHWC) || !isIn(p.algorithm, LSTFE_TILE_128X256))
    {
        return LSTFE_BAD_PARAMETERS;
    }
    return LSTFE_OK;
}

int32_t check(LstfeSampledSumParams const& p)
{
    bool const sized = isSound(p.sampling) && p.channels > 0 && p.channels <= kMAX_SIZE && p.sampling.offsetGroups == 1;
    bool const known = isIn(p.type, LSTFE_BFLOAT16) && isIn(p.layout, LSTFE_NHWC);
    return sized && known ? LSTFE_OK : LSTFE_BAD_PARAMETERS;
}

} // namespace lstfe

using namespace lstfe;

int32_t lstfe_output_height(LstfeSampling const* sampling)
{
    return outputHeight(*sampling);
}

int32_t lstfe_output_width(LstfeSampling const* sampling)
{
    return outputWidth(*sampling);
}

int32_t lstfe_deform_conv2d_host(LstfeDeformConvParams const* params, float const* features, float const* offsets,
    float const* mask, float const* weight, float const* bias, float* output)
{
    int32_t const status = checkCall(params, features, offsets, weight, output);
    if (status != LSTFE_OK || params->type != LSTFE_FLOAT32 || params->layout != LSTFE_NCHW)
    {
        return status != LSTFE_OK ? status : LSTFE_NOT_SUPPORTED;
    }
    DeformConvTensors<float> const tensors{features, offsets, mask, weight, bias, output};
    for (int64_t piece = 0; piece < numDeformConvPieces(*params); ++piece)
    {
        deformConvPiece(*params, tensors, piece);
    }
    return LSTFE_OK;
}

int32_t lstfe_sampled_sum_host(LstfeSampledSumParams const* params, float const* maps, float const* offsets,
    float const* mask, float const* bias, float* output)
{
    int32_t const status = checkCall(params, maps, offsets, output);
    if (status != LSTFE_OK || params->type != LSTFE_FLOAT32 || params->layout != LSTFE_NCHW)
    {
        return status != LSTFE_OK ? status : LSTFE_NOT_SUPPORTED;
    }
    SampledSumTensors<float> const tensors{maps, offsets, mask, bias, output};
    for (int64_t piece = 0; piece < numSampledSumPieces(*params); ++piece)
    {
        sampledSumPiece(*params, tensors, piece);
    }
    return LSTFE_OK;
}

char const* lstfe_status_text(int32_t status)
{
    switch (status)
    {
    case LSTFE_OK: return "done";
    case LSTFE_BAD_PARAMETERS: return "a number is out of its range, or channels do not divide into the groups";
    case LSTFE_NOT_SUPPORTED: return "this algorithm cannot do this type, layout, shape or device";
    case LSTFE_NULL_POINTER: return "a tensor that is not optional is null";
    case LSTFE_SMALL_WORKSPACE: return "the workspace is null or smaller than what was asked for";
    default: return status >= LSTFE_CUDA_ERROR ? "a CUDA call failed; the status minus 1000 is its error" : "unknown";
    }
}

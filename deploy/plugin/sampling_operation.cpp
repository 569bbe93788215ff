#include "sampling_operation.h"

#include <limits>

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace lstfe
{
namespace
{

int32_t at(Dims const& dims, int32_t index)
{
    return static_cast<int32_t>(dims.d[index]);
}

int32_t typeOf(PluginTensorDesc const& tensor)
{
    switch (tensor.type)
    {
    case DataType::kFLOAT: return LSTFE_FLOAT32;
    case DataType::kHALF: return LSTFE_FLOAT16;
    default: return LSTFE_BFLOAT16;
    }
}

int32_t layoutOf(PluginTensorDesc const& tensor)
{
    return tensor.format == TensorFormat::kHWC8 ? LSTFE_NHWC : LSTFE_NCHW;
}

bool isBfloat16(PluginTensorDesc const& tensor)
{
#if NV_TENSORRT_MAJOR >= 10
    return tensor.type == DataType::kBF16;
#else
    static_cast<void>(tensor);
    return false;
#endif
}

bool isFloatingPoint(PluginTensorDesc const& tensor)
{
    return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF || isBfloat16(tensor);
}

//! Whether the kernels have a layout for a feature map of this type and format.
bool isStored(PluginTensorDesc const& tensor)
{
    return tensor.format == TensorFormat::kHWC8
        ? tensor.type == DataType::kHALF || isBfloat16(tensor)
        : tensor.format == TensorFormat::kLINEAR && (tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF);
}

} // namespace

Attributes SamplingOperation::attributes()
{
    constexpr double kMOST = std::numeric_limits<int32_t>::max();
    double const most = isConvolution() ? kMOST : 1.0; // groups of a sampled sum
    return {{"kernel_shape", mKernelShape.data(), 2, 1, kMOST}, {"strides", mStrides.data(), 2, 1, kMOST},
        {"pads", mPads.data(), 4, 0, kMOST}, {"dilations", mDilations.data(), 2, 1, kMOST},
        {"group", &mGroup, 1, 1, most}, {"offset_group", &mOffsetGroup, 1, 1, most}, {"has_bias", &mHasBias, 1, 0, 1},
        {"has_mask", &mHasMask, 1, 0, 1}, {"relu", &mRelu, 1, 0, 1}};
}

int32_t SamplingOperation::numInputs() const
{
    return offsetsAt() + 1 + (mHasBias != 0 ? 1 : 0) + (mHasMask != 0 ? 1 : 0);
}

bool SamplingOperation::outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs* outputs,
    nvinfer1::IExprBuilder& builder) const
{
    if (numGiven != numInputs() || inputs[0].nbDims != 4 || inputs[offsetsAt()].nbDims != 4
        || (isConvolution() && inputs[1].nbDims != 4))
    {
        report(std::string(name()) + ": found " + std::to_string(numGiven) + " inputs, expected "
            + std::to_string(numInputs()) + ", features, weight, maps and offsets with 4 dimensions");
        return false;
    }
    int32_t const taps = mKernelShape[0] * mKernelShape[1];
    nvinfer1::DimsExprs& output = outputs[0];
    output.nbDims = 4;
    output.d[0] = inputs[0].d[0];
    output.d[1] = isConvolution()
        ? inputs[1].d[0]
        : builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *inputs[0].d[3], *builder.constant(taps));
    output.d[2] = inputs[offsetsAt()].d[2];
    output.d[3] = inputs[offsetsAt()].d[3];
    return output.d[1] != nullptr;
}

bool SamplingOperation::isSupported(
    int32_t position, PluginTensorDesc const& features, PluginTensorDesc const& tensor) const
{
    bool const isLinear = tensor.format == TensorFormat::kLINEAR;
    bool const isOutput = position == numInputs();
    if (position == 0)
    {
        return isConvolution() ? isStored(tensor) : isLinear && isFloatingPoint(tensor);
    }
    if (isConvolution() && (isOutput || position == 1))
    {
        return tensor.type == features.type && tensor.format == features.format;
    }
    if (isOutput) // maps are rows, whatever the layers behind the sum would have
    {
        return tensor.type == features.type && isStored(tensor);
    }
    return isLinear && tensor.type == DataType::kFLOAT; // offsets, bias, mask: half would move samples
}

LstfeSampling SamplingOperation::sampling(PluginTensorDesc const* inputs) const
{
    Dims const& features = inputs[0].dims;
    int32_t const heightAt = isConvolution() ? 2 : 1; // maps have their channels last
    LstfeSampling s{};
    s.batch = at(features, 0);
    s.height = at(features, heightAt);
    s.width = at(features, heightAt + 1);
    s.kernelHeight = isConvolution() ? at(inputs[1].dims, 2) : mKernelShape[0];
    s.kernelWidth = isConvolution() ? at(inputs[1].dims, 3) : mKernelShape[1];
    s.strideY = mStrides[0];
    s.strideX = mStrides[1];
    s.padTop = mPads[0];
    s.padLeft = mPads[1];
    s.padBottom = mPads[2];
    s.padRight = mPads[3];
    s.dilationY = mDilations[0];
    s.dilationX = mDilations[1];
    s.offsetGroups = mOffsetGroup;
    return s;
}

LstfeDeformConvParams SamplingOperation::deformConvParams(PluginTensorDesc const* inputs) const
{
    LstfeDeformConvParams params{};
    params.sampling = sampling(inputs);
    params.channels = at(inputs[0].dims, 1);
    params.outChannels = at(inputs[1].dims, 0);
    params.groups = mGroup;
    params.relu = mRelu;
    params.type = typeOf(inputs[0]);
    params.layout = layoutOf(inputs[0]);
    return params;
}

LstfeSampledSumParams SamplingOperation::sampledSumParams(Descriptions const& tensors) const
{
    PluginTensorDesc const& maps = tensors.inputs[0];
    LstfeSampledSumParams params{};
    params.sampling = sampling(tensors.inputs);
    params.channels = at(maps.dims, 3) / (mKernelShape[0] * mKernelShape[1]);
    params.relu = mRelu;
    params.type = typeOf(maps);
    params.layout = layoutOf(tensors.outputs[0]);
    return params;
}

size_t SamplingOperation::workspace(PluginTensorDesc const* inputs) const
{
    if (!isConvolution())
    {
        return 0;
    }
    LstfeDeformConvParams const params = deformConvParams(inputs);
    return lstfe_deform_conv2d_workspace(&params);
}

bool SamplingOperation::areSizesSound(Descriptions const& tensors) const
{
    PluginTensorDesc const* const inputs = tensors.inputs;
    LstfeSampling const s = sampling(inputs);
    if (s.strideY < 1 || s.strideX < 1)
    {
        return false;
    }
    int64_t const taps = int64_t{s.kernelHeight} * s.kernelWidth;
    int64_t const height = lstfe_output_height(&s);
    int64_t const width = lstfe_output_width(&s);
    int64_t const channels = inputs[0].dims.d[isConvolution() ? 1 : 3];
    int64_t const outs = isConvolution() ? int64_t{at(inputs[1].dims, 0)} : channels / taps;
    int32_t next = offsetsAt() + 1;
    bool sound = agree("offsets", inputs[offsetsAt()].dims, {s.batch, 2 * s.offsetGroups * taps, height, width})
        && agree("output", tensors.outputs[0].dims, {s.batch, outs, height, width});
    sound = sound
        && (isConvolution() ? agree("weight", inputs[1].dims,
                                {outs, channels / mGroup, s.kernelHeight, s.kernelWidth})
                          : agree("maps", inputs[0].dims, {s.batch, s.height, s.width, outs * taps}));
    sound = sound && (mHasBias == 0 || agree("bias", inputs[next++].dims, {outs}));
    return sound
        && (mHasMask == 0
            || agree("mask", inputs[next].dims, {s.batch, s.offsetGroups * taps, height, width}));
}

int32_t SamplingOperation::launch(Descriptions const& tensors, Memory const& memory, void* stream) const
{
    void const* const* const inputs = memory.inputs;
    int32_t next = offsetsAt() + 1;
    auto const* const offsets = static_cast<float const*>(inputs[offsetsAt()]);
    auto const* const bias = static_cast<float const*>(mHasBias != 0 ? inputs[next++] : nullptr);
    auto const* const mask = static_cast<float const*>(mHasMask != 0 ? inputs[next] : nullptr);
    if (isConvolution())
    {
        LstfeDeformConvParams const params = deformConvParams(tensors.inputs);
        size_t const bytes = memory.workspace == nullptr ? 0 : workspace(tensors.inputs);
        return lstfe_deform_conv2d(
            &params, inputs[0], offsets, mask, inputs[1], bias, memory.outputs[0], memory.workspace, bytes, stream);
    }
    LstfeSampledSumParams const params = sampledSumParams(tensors);
    return lstfe_sampled_sum(&params, inputs[0], offsets, mask, bias, memory.outputs[0], stream);
}

} // namespace lstfe

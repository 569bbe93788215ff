// The deformable convolution and the sampled sum, which differ in one input.
#ifndef LSTFE_SAMPLING_OPERATION_H
#define LSTFE_SAMPLING_OPERATION_H

#include "operation.h"

#include <array>

namespace lstfe
{

//! Inputs: features, weight, offsets, or maps, offsets; then bias and mask if flagged. Output: features.
class SamplingOperation : public Operation
{
public:
    explicit SamplingOperation(Kind kind)
        : Operation(kind)
    {
    }
    int32_t numInputs() const override;
    int32_t numOutputs() const override { return 1; }
    nvinfer1::DataType outputType(int32_t, nvinfer1::DataType const* inputs) const override { return inputs[0]; }

    //! Sizes come from the offsets, channels from the weight or the maps.
    bool outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs* outputs,
        nvinfer1::IExprBuilder& builder) const override;
    size_t workspace(nvinfer1::PluginTensorDesc const* inputs) const override;
    bool areSizesSound(Descriptions const& tensors) const override;

protected:
    Attributes attributes() override;
    bool isSupported(int32_t position, nvinfer1::PluginTensorDesc const& features,
        nvinfer1::PluginTensorDesc const& tensor) const override;
    int32_t launch(Descriptions const& tensors, Memory const& memory, void* stream) const override;

private:
    bool isConvolution() const { return kind() == Kind::kDEFORM_CONV; }
    int32_t offsetsAt() const { return isConvolution() ? 2 : 1; }
    LstfeSampling sampling(nvinfer1::PluginTensorDesc const* inputs) const;
    LstfeDeformConvParams deformConvParams(nvinfer1::PluginTensorDesc const* inputs) const;
    LstfeSampledSumParams sampledSumParams(Descriptions const& tensors) const;

    // ONNX DeformConv's attributes, two flags that say which optional inputs there are, and a fused ReLU.
    std::array<int32_t, 2> mKernelShape{{3, 3}}; //!< Sampled sum only: a convolution's weights have it.
    std::array<int32_t, 2> mStrides{{1, 1}};
    std::array<int32_t, 4> mPads{{0, 0, 0, 0}}; //!< Top, left, bottom, right.
    std::array<int32_t, 2> mDilations{{1, 1}};
    int32_t mGroup{1};
    int32_t mOffsetGroup{1};
    int32_t mHasBias{0};
    int32_t mHasMask{0};
    int32_t mRelu{0};
};

} // namespace lstfe

#endif // LSTFE_SAMPLING_OPERATION_H

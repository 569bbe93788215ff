// Suppression of the boxes of each class by itself.
#ifndef LSTFE_SUPPRESSION_OPERATION_H
#define LSTFE_SUPPRESSION_OPERATION_H

#include "operation.h"

#include <limits>

namespace lstfe
{

//! Inputs: boxes, scores. Output: marks.
class SuppressionOperation : public Operation
{
public:
    SuppressionOperation()
        : Operation(Kind::kSUPPRESSION)
    {
    }
    int32_t numInputs() const override { return 2; }
    int32_t numOutputs() const override { return 1; }
    nvinfer1::DataType outputType(int32_t output, nvinfer1::DataType const*) const override;
    bool outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs* outputs,
        nvinfer1::IExprBuilder& builder) const override;
    size_t workspace(nvinfer1::PluginTensorDesc const* inputs) const override;
    bool areSizesSound(Descriptions const& tensors) const override;

protected:
    Attributes attributes() override;
    bool isSupported(int32_t position, nvinfer1::PluginTensorDesc const& first,
        nvinfer1::PluginTensorDesc const& tensor) const override;
    int32_t launch(Descriptions const& tensors, Memory const& memory, void* stream) const override;

private:
    LstfeSuppressionParams params(nvinfer1::PluginTensorDesc const* inputs) const;

    // None of them has a value that is right for every model, so that a graph must give all.
    float mNmsIou{-1.F};
    float mScoreThreshold{std::numeric_limits<float>::quiet_NaN()};
    int32_t mMaxKept{0};
};

} // namespace lstfe

#endif // LSTFE_SUPPRESSION_OPERATION_H

// Region proposals of one image.
#ifndef LSTFE_PROPOSAL_OPERATION_H
#define LSTFE_PROPOSAL_OPERATION_H

#include "operation.h"

namespace lstfe
{

//! Inputs: objectness, box deltas, anchors of a cell, image size. Outputs: boxes, valid.
class ProposalOperation : public Operation
{
public:
    ProposalOperation()
        : Operation(Kind::kPROPOSALS)
    {
    }
    int32_t numInputs() const override { return 4; }
    int32_t numOutputs() const override { return 2; }
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
    LstfeProposalParams params(nvinfer1::PluginTensorDesc const* inputs) const;

    // None of them has a value that is right for every model, so that a graph must give all.
    float mStride{0.F};
    int32_t mPreNmsTopK{0};
    int32_t mPostNmsTopK{0};
    float mNmsIou{-1.F};
    float mMinSizePx{-1.F};
};

} // namespace lstfe

#endif // LSTFE_PROPOSAL_OPERATION_H

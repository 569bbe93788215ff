#include "proposal_operation.h"

#include "proposal.h"

using nvinfer1::DataType;
using nvinfer1::PluginTensorDesc;

namespace lstfe
{
namespace
{

constexpr int32_t kOBJECTNESS = 0;
constexpr int32_t kBOX_DELTAS = 1;
constexpr int32_t kCELL_ANCHORS = 2;
constexpr int32_t kIMAGE_SIZE = 3;
constexpr int32_t kBOXES = 0;
constexpr int32_t kVALID = 1;

} // namespace

Attributes ProposalOperation::attributes()
{
    return {{"stride", &mStride, 1, kLEAST_SIDE_PX, kMAX_PX}, {"pre_nms_top_k", &mPreNmsTopK, 1, 1, kMAX_CANDIDATES},
        {"post_nms_top_k", &mPostNmsTopK, 1, 1, kMAX_CANDIDATES}, {"nms_iou", &mNmsIou, 1, 0, 1},
        {"min_size_px", &mMinSizePx, 1, 0, kMAX_PX}};
}

DataType ProposalOperation::outputType(int32_t output, DataType const*) const
{
    return output == kVALID ? DataType::kINT32 : DataType::kFLOAT;
}

bool ProposalOperation::outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs* outputs,
    nvinfer1::IExprBuilder& builder) const
{
    if (numGiven != numInputs() || inputs[kOBJECTNESS].nbDims != 4)
    {
        report(std::string(name()) + ": found " + std::to_string(numGiven) + " inputs, expected "
            + std::to_string(numInputs()) + ", objectness with 4 dimensions");
        return false;
    }
    outputs[kBOXES].nbDims = 3;
    outputs[kVALID].nbDims = 2;
    for (int32_t const output : {kBOXES, kVALID})
    {
        outputs[output].d[0] = inputs[kOBJECTNESS].d[0];
        outputs[output].d[1] = builder.constant(mPostNmsTopK);
    }
    outputs[kBOXES].d[2] = builder.constant(4);
    return true;
}

bool ProposalOperation::isSupported(int32_t position, PluginTensorDesc const&, PluginTensorDesc const& tensor) const
{
    return isPlain(tensor, position == kIMAGE_SIZE || position == numInputs() + kVALID);
}

LstfeProposalParams ProposalOperation::params(PluginTensorDesc const* inputs) const
{
    auto const& dims = inputs[kOBJECTNESS].dims.d;
    LstfeProposalParams params{};
    params.anchors = static_cast<int32_t>(dims[1]);
    params.height = static_cast<int32_t>(dims[2]);
    params.width = static_cast<int32_t>(dims[3]);
    params.stride = mStride;
    params.preNmsTopK = mPreNmsTopK;
    params.postNmsTopK = mPostNmsTopK;
    params.nmsIou = mNmsIou;
    params.minSizePx = mMinSizePx;
    return params;
}

size_t ProposalOperation::workspace(PluginTensorDesc const* inputs) const
{
    LstfeProposalParams const p = params(inputs);
    return lstfe_proposals_workspace(&p);
}

bool ProposalOperation::areSizesSound(Descriptions const& tensors) const
{
    LstfeProposalParams const p = params(tensors.inputs);
    // One image: several have several sizes, and candidates of their own.
    return agree("objectness", tensors.inputs[kOBJECTNESS].dims, {1, p.anchors, p.height, p.width})
        && agree("box deltas", tensors.inputs[kBOX_DELTAS].dims, {1, int64_t{4} * p.anchors, p.height, p.width})
        && agree("anchors", tensors.inputs[kCELL_ANCHORS].dims, {p.anchors, 4})
        && agree("image size", tensors.inputs[kIMAGE_SIZE].dims, {2})
        && agree("boxes", tensors.outputs[kBOXES].dims, {1, mPostNmsTopK, 4})
        && agree("valid", tensors.outputs[kVALID].dims, {1, mPostNmsTopK});
}

int32_t ProposalOperation::launch(Descriptions const& tensors, Memory const& memory, void* stream) const
{
    LstfeProposalParams const p = params(tensors.inputs);
    auto const floats = [&](int32_t input) { return static_cast<float const*>(memory.inputs[input]); };
    return lstfe_proposals(&p, floats(kOBJECTNESS), floats(kBOX_DELTAS), floats(kCELL_ANCHORS),
        static_cast<int32_t const*>(memory.inputs[kIMAGE_SIZE]), static_cast<float*>(memory.outputs[kBOXES]),
        static_cast<int32_t*>(memory.outputs[kVALID]), memory.workspace, workspace(tensors.inputs), stream);
}

} // namespace lstfe

#include "suppression_operation.h"

#include "suppression.h"

#include <limits>

using nvinfer1::DataType;
using nvinfer1::PluginTensorDesc;

namespace lstfe
{
namespace
{

constexpr int32_t kBOXES = 0;
constexpr int32_t kSCORES = 1;
constexpr float kMOST = std::numeric_limits<float>::max();

} // namespace

Attributes SuppressionOperation::attributes()
{
    return {{"nms_iou", &mNmsIou, 1, 0, 1}, {"score_threshold", &mScoreThreshold, 1, -kMOST, kMOST},
        {"max_kept", &mMaxKept, 1, 1, kMAX_KEPT}};
}

DataType SuppressionOperation::outputType(int32_t, DataType const*) const
{
    return DataType::kINT32;
}

bool SuppressionOperation::outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven,
    nvinfer1::DimsExprs* outputs, nvinfer1::IExprBuilder&) const
{
    if (numGiven != numInputs() || inputs[kSCORES].nbDims != 2)
    {
        report(std::string(name()) + ": found " + std::to_string(numGiven) + " inputs, expected "
            + std::to_string(numInputs()) + ", scores with 2 dimensions");
        return false;
    }
    outputs[0] = inputs[kSCORES];
    return true;
}

bool SuppressionOperation::isSupported(int32_t position, PluginTensorDesc const&, PluginTensorDesc const& tensor) const
{
    return isPlain(tensor, position == numInputs());
}

LstfeSuppressionParams SuppressionOperation::params(PluginTensorDesc const* inputs) const
{
    auto const& dims = inputs[kSCORES].dims.d;
    LstfeSuppressionParams params{};
    params.classes = static_cast<int32_t>(dims[0]);
    params.boxes = static_cast<int32_t>(dims[1]);
    params.nmsIou = mNmsIou;
    params.scoreThreshold = mScoreThreshold;
    params.maxKept = mMaxKept;
    return params;
}

size_t SuppressionOperation::workspace(PluginTensorDesc const* inputs) const
{
    LstfeSuppressionParams const p = params(inputs);
    return lstfe_suppression_workspace(&p);
}

bool SuppressionOperation::areSizesSound(Descriptions const& tensors) const
{
    LstfeSuppressionParams const p = params(tensors.inputs);
    return agree("boxes", tensors.inputs[kBOXES].dims, {p.classes, p.boxes, 4})
        && agree("scores", tensors.inputs[kSCORES].dims, {p.classes, p.boxes})
        && agree("marks", tensors.outputs[0].dims, {p.classes, p.boxes});
}

int32_t SuppressionOperation::launch(Descriptions const& tensors, Memory const& memory, void* stream) const
{
    LstfeSuppressionParams const p = params(tensors.inputs);
    return lstfe_suppression(&p, static_cast<float const*>(memory.inputs[kBOXES]),
        static_cast<float const*>(memory.inputs[kSCORES]), static_cast<int32_t*>(memory.outputs[0]), memory.workspace,
        workspace(tensors.inputs), stream);
}

} // namespace lstfe

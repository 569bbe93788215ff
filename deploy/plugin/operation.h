// What the two TensorRT plugin interfaces share: shapes, formats and launch of the two operators.
#ifndef LSTFE_OPERATION_H
#define LSTFE_OPERATION_H

#include "attributes.h"
#include "lstfe_plugin.h"

namespace lstfe
{

//! An operator with its attributes. Inputs: features, weight, offsets, or maps, offsets; then bias and mask if flagged.
class Operation
{
public:
    Operation(Kind kind, Attributes const& attributes)
        : mKind(kind)
        , mAttributes(attributes)
    {
    }
    Kind kind() const { return mKind; }
    Attributes const& attributes() const { return mAttributes; }
    int32_t numInputs() const;

    //! Sizes come from the offsets, channels from the weight or the maps.
    bool outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs& output,
        nvinfer1::IExprBuilder& builder) const;

    //! Whether tensor `position` (the output is last) fits what was chosen for those before it.
    template <typename TensorAt>
    bool supports(int32_t position, TensorAt const& tensorAt) const
    {
        return isSupported(position, tensorAt(0), tensorAt(position));
    }

    //! Bytes for tensors of these sizes or any smaller ones.
    size_t workspace(nvinfer1::PluginTensorDesc const* inputs) const;

    //! Whether sizes agree with each other; the log says which do not.
    bool areSizesSound(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const& output) const;

    //! Launches the kernel; returns an LstfeStatus.
    int32_t run(nvinfer1::PluginTensorDesc const* inputDescs, nvinfer1::PluginTensorDesc const& outputDesc,
        void const* const* inputs, void* output, void* workspace, void* stream) const;

private:
    bool isSupported(
        int32_t position, nvinfer1::PluginTensorDesc const& features, nvinfer1::PluginTensorDesc const& tensor) const;
    int32_t offsetsAt() const { return mKind == Kind::kDEFORM_CONV ? 2 : 1; }
    LstfeSampling sampling(nvinfer1::PluginTensorDesc const* inputs) const;
    LstfeDeformConvParams deformConvParams(nvinfer1::PluginTensorDesc const* inputs) const;
    LstfeSampledSumParams sampledSumParams(nvinfer1::PluginTensorDesc const* inputs) const;

    Kind mKind;
    Attributes mAttributes;
};

} // namespace lstfe

#endif // LSTFE_OPERATION_H

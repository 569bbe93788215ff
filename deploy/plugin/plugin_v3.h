// The operators as IPluginV3, for TensorRT 10 and newer.
#ifndef LSTFE_PLUGIN_V3_H
#define LSTFE_PLUGIN_V3_H

#include "operation.h"

namespace lstfe
{

class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime
{
public:
    explicit Plugin(Operation const& operation)
        : mOperation(operation)
        , mState(writeState(operation.kind(), operation.attributes()))
        , mField("state", mState.data(), nvinfer1::PluginFieldType::kCHAR, static_cast<int32_t>(mState.size()))
        , mFields{1, &mField}
    {
    }

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }
    nvinfer1::IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(mOperation); }

    // IPluginV3OneCore
    char const* getPluginName() const noexcept override { return nameOf(mOperation.kind()); }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    char const* getPluginNamespace() const noexcept override { return kNAMESPACE; }

    // IPluginV3OneBuild
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t numInputs,
        nvinfer1::DynamicPluginTensorDesc const*, int32_t numOutputs) noexcept override
    {
        return numInputs == mOperation.numInputs() && numOutputs == 1 ? 0 : 1;
    }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t numOutputs, nvinfer1::DataType const* inputs,
        int32_t numInputs) const noexcept override
    {
        if (numInputs != mOperation.numInputs() || numOutputs != 1)
        {
            return 1;
        }
        outputs[0] = inputs[0];
        return 0;
    }
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t numInputs, nvinfer1::DimsExprs const*, int32_t,
        nvinfer1::DimsExprs* outputs, int32_t numOutputs, nvinfer1::IExprBuilder& builder) noexcept override
    {
        return numOutputs == 1 && mOperation.outputDims(inputs, numInputs, outputs[0], builder) ? 0 : 1;
    }
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
        int32_t numInputs, int32_t numOutputs) noexcept override
    {
        return numInputs == mOperation.numInputs() && numOutputs == 1
            && mOperation.supports(position, [&](int32_t i) { return tensors[i].desc; });
    }
    int32_t getNbOutputs() const noexcept override { return 1; }
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t numInputs,
        nvinfer1::DynamicPluginTensorDesc const*, int32_t) const noexcept override
    {
        std::vector<nvinfer1::PluginTensorDesc> largest;
        for (int32_t i = 0; i < numInputs; ++i)
        {
            largest.push_back(inputs[i].desc);
            largest.back().dims = inputs[i].max;
        }
        return mOperation.workspace(largest.data());
    }

    // IPluginV3OneRuntime
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t, nvinfer1::PluginTensorDesc const* outputs,
        int32_t) noexcept override
    {
        return mOperation.areSizesSound(inputs, outputs[0]) ? 0 : 1;
    }
    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDescs, nvinfer1::PluginTensorDesc const* outputDescs,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept override
    {
        return mOperation.run(inputDescs, outputDescs[0], inputs, outputs[0], workspace, stream);
    }
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &mFields; }

private:
    Operation mOperation;
    std::vector<uint8_t> mState;
    nvinfer1::PluginField mField;
    nvinfer1::PluginFieldCollection mFields;
};

class Creator : public nvinfer1::IPluginCreatorV3One
{
public:
    explicit Creator(Kind kind)
        : mKind(kind)
    {
    }
    char const* getPluginName() const noexcept override { return nameOf(mKind); }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    char const* getPluginNamespace() const noexcept override { return kNAMESPACE; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &attributeFields(); }

    //! While building, fields are ONNX attributes; at run time the state of getFieldsToSerialize.
    nvinfer1::IPluginV3* createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
        nvinfer1::TensorRTPhase phase) noexcept override
    {
        if (fields == nullptr)
        {
            return nullptr;
        }
        std::optional<Attributes> const attributes
            = phase == nvinfer1::TensorRTPhase::kBUILD ? readAttributes(mKind, *fields) : readSaved(*fields);
        return attributes ? new (std::nothrow) Plugin(Operation(mKind, *attributes)) : nullptr;
    }

private:
    std::optional<Attributes> readSaved(nvinfer1::PluginFieldCollection const& fields) const
    {
        if (fields.nbFields != 1 || std::string("state") != fields.fields[0].name || fields.fields[0].length < 0)
        {
            report(std::string(nameOf(mKind)) + ": an engine must hold one field, state; build the engine again");
            return std::nullopt;
        }
        return readState(mKind, fields.fields[0].data, static_cast<size_t>(fields.fields[0].length));
    }

    Kind mKind;
};

using CreatorInterface = nvinfer1::IPluginCreatorInterface;

} // namespace lstfe

#endif // LSTFE_PLUGIN_V3_H

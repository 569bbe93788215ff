// The operators as IPluginV3, for TensorRT 10 and newer.
#ifndef LSTFE_PLUGIN_V3_H
#define LSTFE_PLUGIN_V3_H

#include "operation.h"

#include <utility>

namespace lstfe
{

class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime
{
public:
    explicit Plugin(SharedOperation operation)
        : mOperation(std::move(operation))
        , mField("state", mOperation->state().data(), nvinfer1::PluginFieldType::kCHAR,
              static_cast<int32_t>(mOperation->state().size()))
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
    char const* getPluginName() const noexcept override { return mOperation->name(); }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    char const* getPluginNamespace() const noexcept override { return kNAMESPACE; }

    // IPluginV3OneBuild
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t numInputs,
        nvinfer1::DynamicPluginTensorDesc const*, int32_t numOutputs) noexcept override
    {
        return fits(numInputs, numOutputs) ? 0 : 1;
    }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t numOutputs, nvinfer1::DataType const* inputs,
        int32_t numInputs) const noexcept override
    {
        for (int32_t i = 0; i < numOutputs && fits(numInputs, numOutputs); ++i)
        {
            outputs[i] = mOperation->outputType(i, inputs);
        }
        return fits(numInputs, numOutputs) ? 0 : 1;
    }
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t numInputs, nvinfer1::DimsExprs const*, int32_t,
        nvinfer1::DimsExprs* outputs, int32_t numOutputs, nvinfer1::IExprBuilder& builder) noexcept override
    {
        bool const isKnown
            = numOutputs == mOperation->numOutputs() && mOperation->outputDims(inputs, numInputs, outputs, builder);
        return isKnown ? 0 : 1;
    }
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
        int32_t numInputs, int32_t numOutputs) noexcept override
    {
        return fits(numInputs, numOutputs)
            && mOperation->supports(position, [&](int32_t i) { return tensors[i].desc; });
    }
    int32_t getNbOutputs() const noexcept override { return mOperation->numOutputs(); }
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t numInputs,
        nvinfer1::DynamicPluginTensorDesc const*, int32_t) const noexcept override
    {
        std::vector<nvinfer1::PluginTensorDesc> largest;
        for (int32_t i = 0; i < numInputs; ++i)
        {
            largest.push_back(inputs[i].desc);
            largest.back().dims = inputs[i].max;
        }
        return mOperation->workspace(largest.data());
    }

    // IPluginV3OneRuntime
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, int32_t, nvinfer1::PluginTensorDesc const* outputs,
        int32_t) noexcept override
    {
        return mOperation->areSizesSound({inputs, outputs}) ? 0 : 1;
    }
    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDescs, nvinfer1::PluginTensorDesc const* outputDescs,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept override
    {
        return mOperation->run({inputDescs, outputDescs}, {inputs, outputs, workspace}, stream);
    }
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &mFields; }

private:
    bool fits(int32_t numInputs, int32_t numOutputs) const
    {
        return numInputs == mOperation->numInputs() && numOutputs == mOperation->numOutputs();
    }

    SharedOperation mOperation;
    nvinfer1::PluginField mField;
    nvinfer1::PluginFieldCollection mFields;
};

class Creator : public nvinfer1::IPluginCreatorV3One
{
public:
    explicit Creator(Kind kind)
        : mMaker(kind)
    {
    }
    char const* getPluginName() const noexcept override { return mMaker.name(); }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    char const* getPluginNamespace() const noexcept override { return kNAMESPACE; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &mMaker.fields(); }

    //! While building, fields are ONNX attributes; at run time the state of getFieldsToSerialize.
    nvinfer1::IPluginV3* createPlugin(
        char const*, nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase phase) noexcept override
    {
        if (fields == nullptr)
        {
            return nullptr;
        }
        SharedOperation const operation
            = phase == nvinfer1::TensorRTPhase::kBUILD ? mMaker.make(*fields) : restored(*fields);
        return operation != nullptr ? new (std::nothrow) Plugin(operation) : nullptr;
    }

private:
    SharedOperation restored(nvinfer1::PluginFieldCollection const& fields) const
    {
        if (fields.nbFields != 1 || std::string("state") != fields.fields[0].name || fields.fields[0].length < 0)
        {
            report(std::string(mMaker.name()) + ": an engine must hold one field, state; build the engine again");
            return nullptr;
        }
        return mMaker.restore(fields.fields[0].data, static_cast<size_t>(fields.fields[0].length));
    }

    OperationMaker mMaker;
};

using CreatorInterface = nvinfer1::IPluginCreatorInterface;

} // namespace lstfe

#endif // LSTFE_PLUGIN_V3_H

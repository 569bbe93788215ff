// The operators as IPluginV2DynamicExt, for TensorRT 8.5 and 8.6.
#ifndef LSTFE_PLUGIN_V2_H
#define LSTFE_PLUGIN_V2_H

#include "operation.h"

#include <cstring>
#include <utility>

namespace lstfe
{

class Plugin : public nvinfer1::IPluginV2DynamicExt
{
public:
    explicit Plugin(SharedOperation operation)
        : mOperation(std::move(operation))
    {
    }

    // IPluginV2
    char const* getPluginType() const noexcept override { return mOperation->name(); }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    int32_t getNbOutputs() const noexcept override { return mOperation->numOutputs(); }
    int32_t initialize() noexcept override { return 0; }
    void terminate() noexcept override {}
    size_t getSerializationSize() const noexcept override { return mOperation->state().size(); }
    void serialize(void* buffer) const noexcept override
    {
        std::vector<uint8_t> const& bytes = mOperation->state();
        std::memcpy(buffer, bytes.data(), bytes.size());
    }
    void destroy() noexcept override { delete this; }
    void setPluginNamespace(char const* name) noexcept override { mNamespace = name == nullptr ? "" : name; }
    char const* getPluginNamespace() const noexcept override { return mNamespace.c_str(); }

    // IPluginV2Ext
    nvinfer1::DataType getOutputDataType(
        int32_t output, nvinfer1::DataType const* inputs, int32_t) const noexcept override
    {
        return mOperation->outputType(output, inputs);
    }

    // IPluginV2DynamicExt
    nvinfer1::IPluginV2DynamicExt* clone() const noexcept override
    {
        auto* const copy = new (std::nothrow) Plugin(mOperation);
        if (copy != nullptr)
        {
            copy->setPluginNamespace(mNamespace.c_str());
        }
        return copy;
    }
    //! This interface has no error here: without dimensions TensorRT stops, and the log says why.
    nvinfer1::DimsExprs getOutputDimensions(int32_t output, nvinfer1::DimsExprs const* inputs, int32_t numInputs,
        nvinfer1::IExprBuilder& builder) noexcept override
    {
        std::vector<nvinfer1::DimsExprs> outputs(static_cast<size_t>(mOperation->numOutputs()));
        bool const isKnown = mOperation->outputDims(inputs, numInputs, outputs.data(), builder);
        return isKnown ? outputs[static_cast<size_t>(output)] : nvinfer1::DimsExprs{};
    }
    bool supportsFormatCombination(int32_t position, nvinfer1::PluginTensorDesc const* tensors, int32_t numInputs,
        int32_t numOutputs) noexcept override
    {
        return numInputs == mOperation->numInputs() && numOutputs == mOperation->numOutputs()
            && mOperation->supports(position, [&](int32_t i) { return tensors[i]; });
    }
    void configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t, nvinfer1::DynamicPluginTensorDesc const*,
        int32_t) noexcept override
    {
    }
    size_t getWorkspaceSize(nvinfer1::PluginTensorDesc const* inputs, int32_t, nvinfer1::PluginTensorDesc const*,
        int32_t) const noexcept override
    {
        return mOperation->workspace(inputs);
    }
    int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDescs, nvinfer1::PluginTensorDesc const* outputDescs,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept override
    {
        return mOperation->run({inputDescs, outputDescs}, {inputs, outputs, workspace}, stream);
    }

private:
    SharedOperation mOperation;
    std::string mNamespace{kNAMESPACE};
};

class Creator : public nvinfer1::IPluginCreator
{
public:
    explicit Creator(Kind kind)
        : mMaker(kind)
    {
    }
    char const* getPluginName() const noexcept override { return mMaker.name(); }
    char const* getPluginVersion() const noexcept override { return kVERSION; }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &mMaker.fields(); }
    nvinfer1::IPluginV2* createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields) noexcept override
    {
        return fields == nullptr ? nullptr : make(mMaker.make(*fields));
    }
    nvinfer1::IPluginV2* deserializePlugin(char const*, void const* data, size_t length) noexcept override
    {
        return make(mMaker.restore(data, length));
    }
    void setPluginNamespace(char const* name) noexcept override { mNamespace = name == nullptr ? "" : name; }
    char const* getPluginNamespace() const noexcept override { return mNamespace.c_str(); }

private:
    nvinfer1::IPluginV2* make(SharedOperation const& operation) const
    {
        return operation != nullptr ? new (std::nothrow) Plugin(operation) : nullptr;
    }

    OperationMaker mMaker;
    std::string mNamespace{kNAMESPACE};
};

using CreatorInterface = nvinfer1::IPluginCreator;

} // namespace lstfe

#endif // LSTFE_PLUGIN_V2_H

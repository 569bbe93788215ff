// What the two TensorRT plugin interfaces share: shapes, formats and launch of an operator, whichever it is.
#ifndef LSTFE_OPERATION_H
#define LSTFE_OPERATION_H

#include "attributes.h"
#include "lstfe_plugin.h"

#include <initializer_list>
#include <memory>

namespace lstfe
{

//! What TensorRT says about the tensors of a node.
struct Descriptions
{
    nvinfer1::PluginTensorDesc const* inputs;
    nvinfer1::PluginTensorDesc const* outputs;
};

//! The tensors themselves, in device memory.
struct Memory
{
    void const* const* inputs;
    void* const* outputs;
    void* workspace;
};

//! An operator with its attributes, which do not change once it is made: copies of a plugin share it.
class Operation
{
public:
    explicit Operation(Kind kind)
        : mKind(kind)
    {
    }
    virtual ~Operation() = default;
    Operation(Operation const&) = delete;
    Operation& operator=(Operation const&) = delete;

    Kind kind() const { return mKind; }
    char const* name() const { return nameOf(mKind); }

    //! What restoreOperation makes the same operator of.
    std::vector<uint8_t> const& state() const { return mState; }

    virtual int32_t numInputs() const = 0;
    virtual int32_t numOutputs() const = 0;
    virtual nvinfer1::DataType outputType(int32_t output, nvinfer1::DataType const* inputs) const = 0;

    //! Dimensions of every output; the log says what is wrong with the inputs otherwise.
    virtual bool outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs* outputs,
        nvinfer1::IExprBuilder& builder) const = 0;

    //! Whether tensor `position`, inputs before outputs, fits what was chosen for those before it.
    template <typename TensorAt>
    bool supports(int32_t position, TensorAt const& tensorAt) const
    {
        return isSupported(position, tensorAt(0), tensorAt(position));
    }

    //! Bytes for tensors of these sizes or any smaller ones.
    virtual size_t workspace(nvinfer1::PluginTensorDesc const* inputs) const = 0;

    //! Whether sizes agree with each other; the log says which do not.
    virtual bool areSizesSound(Descriptions const& tensors) const = 0;

    //! Checks sizes and launches the kernels; returns an LstfeStatus, and the log says what it means.
    int32_t run(Descriptions const& tensors, Memory const& memory, void* stream) const;

protected:
    //! The attributes, to be filled before the operator is used.
    virtual Attributes attributes() = 0;
    virtual bool isSupported(int32_t position, nvinfer1::PluginTensorDesc const& first,
        nvinfer1::PluginTensorDesc const& tensor) const = 0;
    virtual int32_t launch(Descriptions const& tensors, Memory const& memory, void* stream) const = 0;

    //! Whether a tensor has these dimensions; the log says so otherwise.
    bool agree(char const* what, nvinfer1::Dims const& found, std::initializer_list<int64_t> expected) const;

    //! Whether a tensor is linear, and int32 or float32: all that operators on boxes take.
    static bool isPlain(nvinfer1::PluginTensorDesc const& tensor, bool isInteger);

private:
    friend class OperationMaker;

    Kind mKind;
    std::vector<uint8_t> mState;
};

using SharedOperation = std::shared_ptr<Operation const>;

//! Makes operators of one kind.
class OperationMaker
{
public:
    explicit OperationMaker(Kind kind);
    OperationMaker(OperationMaker const&) = delete; // the collection points into it
    OperationMaker& operator=(OperationMaker const&) = delete;

    char const* name() const { return nameOf(mKind); }

    //! What a creator announces; lives as long as this.
    nvinfer1::PluginFieldCollection const& fields() const { return mCollection; }

    //! From a graph's attributes; null where they are wrong, and the log says what.
    SharedOperation make(nvinfer1::PluginFieldCollection const& fields) const;

    //! From the state that an engine keeps; null where it is damaged, and the log says so.
    SharedOperation restore(void const* data, size_t length) const;

private:
    std::shared_ptr<Operation> blank() const;
    SharedOperation finish(std::shared_ptr<Operation> const& operation, bool isFilled) const;

    Kind mKind;
    std::vector<nvinfer1::PluginField> mFields;
    nvinfer1::PluginFieldCollection mCollection;
};

} // namespace lstfe

#endif // LSTFE_OPERATION_H

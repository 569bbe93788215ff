#include "operation.h"

#include "proposal_operation.h"
#include "sampling_operation.h"
#include "suppression_operation.h"

using nvinfer1::Dims;

namespace lstfe
{
namespace
{

std::string text(Dims const& dims)
{
    std::string result;
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        result += (i == 0 ? "" : "x") + std::to_string(dims.d[i]);
    }
    return result;
}

} // namespace

bool Operation::agree(char const* what, Dims const& found, std::initializer_list<int64_t> expected) const
{
    Dims wanted{};
    for (int64_t const size : expected)
    {
        wanted.d[wanted.nbDims++] = static_cast<decltype(wanted.d[0] + 0)>(size);
    }
    if (text(found) != text(wanted))
    {
        report(std::string(name()) + ": " + what + " is " + text(found) + ", expected " + text(wanted));
        return false;
    }
    return true;
}

bool Operation::isPlain(nvinfer1::PluginTensorDesc const& tensor, bool isInteger)
{
    return tensor.format == nvinfer1::TensorFormat::kLINEAR
        && tensor.type == (isInteger ? nvinfer1::DataType::kINT32 : nvinfer1::DataType::kFLOAT);
}

int32_t Operation::run(Descriptions const& tensors, Memory const& memory, void* stream) const
{
    if (!areSizesSound(tensors))
    {
        return LSTFE_BAD_PARAMETERS;
    }
    int32_t const status = launch(tensors, memory, stream);
    if (status != LSTFE_OK)
    {
        report(std::string(name()) + ": " + lstfe_status_text(status) + " (status " + std::to_string(status) + ")");
    }
    return status;
}

OperationMaker::OperationMaker(Kind kind)
    : mKind(kind)
    , mFields(fieldsOf(blank()->attributes()))
    , mCollection{static_cast<int32_t>(mFields.size()), mFields.data()}
{
}

SharedOperation OperationMaker::make(nvinfer1::PluginFieldCollection const& fields) const
{
    std::shared_ptr<Operation> const operation = blank();
    return finish(operation, readFields(mKind, operation->attributes(), fields));
}

SharedOperation OperationMaker::restore(void const* data, size_t length) const
{
    std::shared_ptr<Operation> const operation = blank();
    return finish(operation, readState(mKind, operation->attributes(), data, length));
}

std::shared_ptr<Operation> OperationMaker::blank() const
{
    switch (mKind)
    {
    case Kind::kPROPOSALS: return std::make_shared<ProposalOperation>();
    case Kind::kSUPPRESSION: return std::make_shared<SuppressionOperation>();
    default: return std::make_shared<SamplingOperation>(mKind);
    }
}

SharedOperation OperationMaker::finish(std::shared_ptr<Operation> const& operation, bool isFilled) const
{
    operation->mState = writeState(mKind, operation->attributes());
    return isFilled ? operation : nullptr;
}

} // namespace lstfe

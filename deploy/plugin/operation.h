// What the two TensorRT plugin interfaces share: attributes, shapes, formats, state and launch of the two operators.
#ifndef LSTFE_OPERATION_H
#define LSTFE_OPERATION_H

#include "lstfe_plugin.h"

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lstfe
{

constexpr char const* kNAMESPACE = "lstfe";
constexpr char const* kVERSION = "1";

enum class Kind : int32_t
{
    kDEFORM_CONV = 0,
    kSAMPLED_SUM = 1
};
constexpr int32_t kNUM_KINDS = 2;

//! Name of the operator in an ONNX graph.
char const* nameOf(Kind kind);

//! ONNX DeformConv's attributes, two flags that say which optional inputs there are, and a fused ReLU.
struct Attributes
{
    std::array<int32_t, 2> kernelShape{{3, 3}}; //!< Sampled sum only: a convolution's weights have it.
    std::array<int32_t, 2> strides{{1, 1}};
    std::array<int32_t, 4> pads{{0, 0, 0, 0}}; //!< Top, left, bottom, right.
    std::array<int32_t, 2> dilations{{1, 1}};
    int32_t group{1};
    int32_t offsetGroup{1};
    int32_t hasBias{0};
    int32_t hasMask{0};
    int32_t relu{0};
};

//! The fields that creators announce; lives as long as the library.
nvinfer1::PluginFieldCollection const& attributeFields();

//! Reads and checks attributes; says on the log what is wrong with them otherwise.
std::optional<Attributes> readAttributes(Kind kind, nvinfer1::PluginFieldCollection const& fields);

//! Serialised attributes: "LSTF", format version, length, kind, numbers, checksum; all little-endian 32-bit.
std::vector<uint8_t> writeState(Kind kind, Attributes const& attributes);

//! Reads what writeState wrote. Anything cut short, altered or of another version is refused, and the log says why.
std::optional<Attributes> readState(Kind kind, void const* data, size_t length);

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
    bool isSupported(int32_t position, nvinfer1::PluginTensorDesc const& features,
        nvinfer1::PluginTensorDesc const& tensor) const;
    int32_t offsetsAt() const { return mKind == Kind::kDEFORM_CONV ? 2 : 1; }
    LstfeSampling sampling(nvinfer1::PluginTensorDesc const* inputs) const;
    LstfeDeformConvParams deformConvParams(nvinfer1::PluginTensorDesc const* inputs) const;
    LstfeSampledSumParams sampledSumParams(nvinfer1::PluginTensorDesc const* inputs) const;

    Kind mKind;
    Attributes mAttributes;
};

//! Writes one line to TensorRT's log, or to stderr where no logger is known.
void report(std::string const& message);
void setLogger(nvinfer1::ILogger* (*find)());

} // namespace lstfe

#endif // LSTFE_OPERATION_H

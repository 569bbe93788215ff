// Attributes of the two operators: as TensorRT hands them over, and as an engine keeps them.
#ifndef LSTFE_ATTRIBUTES_H
#define LSTFE_ATTRIBUTES_H

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
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

//! Writes one line to TensorRT's log, or to stderr where no logger is known.
void report(std::string const& message);
void setLogger(nvinfer1::ILogger* (*find)());

} // namespace lstfe

#endif // LSTFE_ATTRIBUTES_H

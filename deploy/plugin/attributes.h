// Attributes of the operators: as TensorRT hands them over, and as an engine keeps them.
#ifndef LSTFE_ATTRIBUTES_H
#define LSTFE_ATTRIBUTES_H

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace lstfe
{

constexpr char const* kNAMESPACE = "lstfe";
constexpr char const* kVERSION = "1";

enum class Kind : int32_t
{
    kDEFORM_CONV = 0,
    kSAMPLED_SUM = 1,
    kPROPOSALS = 2,
    kSUPPRESSION = 3
};
constexpr int32_t kNUM_KINDS = 4;

//! Name of the operator in an ONNX graph.
char const* nameOf(Kind kind);

//! One attribute: its name in ONNX, where its numbers lie, and between which they make sense.
struct Attribute
{
    char const* name;
    std::variant<int32_t*, float*> numbers;
    int32_t length;
    double least, most;
};
using Attributes = std::vector<Attribute>;

//! The fields that a creator announces for these attributes; without values.
std::vector<nvinfer1::PluginField> fieldsOf(Attributes const& attributes);

//! Fills the attributes from the fields given and checks them all; where one is wrong, the log says what.
bool readFields(Kind kind, Attributes const& attributes, nvinfer1::PluginFieldCollection const& fields);

//! Serialised attributes: "LSTF", format version, length, kind, numbers, checksum; all little-endian 32-bit.
std::vector<uint8_t> writeState(Kind kind, Attributes const& attributes);

//! Fills the attributes from what writeState wrote. Anything cut short, altered or of another version is refused, and
//! the log says why.
bool readState(Kind kind, Attributes const& attributes, void const* data, size_t length);

//! Writes one line to TensorRT's log, or to stderr where no logger is known.
void report(std::string const& message);
void setLogger(nvinfer1::ILogger* (*find)());

} // namespace lstfe

#endif // LSTFE_ATTRIBUTES_H

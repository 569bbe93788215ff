#include "operation.h"

#include <cstdio>
#include <cstring>
#include <mutex>

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace lstfe
{
namespace
{

struct Field
{
    char const* name;
    int32_t* values;
    int32_t length;
    int32_t least;
};

constexpr int32_t kNUM_FIELDS = 9;

//! The one list of attributes: names as in ONNX, and the least sound value.
std::array<Field, kNUM_FIELDS> fieldsOf(Attributes& a)
{
    return {{{"kernel_shape", a.kernelShape.data(), 2, 1}, {"strides", a.strides.data(), 2, 1},
        {"pads", a.pads.data(), 4, 0}, {"dilations", a.dilations.data(), 2, 1}, {"group", &a.group, 1, 1},
        {"offset_group", &a.offsetGroup, 1, 1}, {"has_bias", &a.hasBias, 1, 0}, {"has_mask", &a.hasMask, 1, 0},
        {"relu", &a.relu, 1, 0}}};
}

bool copyNumbers(nvinfer1::PluginField const& given, Field const& field)
{
    if (given.length != field.length || given.data == nullptr)
    {
        return false;
    }
    if (given.type == PluginFieldType::kINT32)
    {
        std::memcpy(field.values, given.data, sizeof(int32_t) * static_cast<size_t>(field.length));
        return true;
    }
#if NV_TENSORRT_MAJOR >= 10
    if (given.type == PluginFieldType::kINT64)
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            field.values[i] = static_cast<int32_t>(static_cast<int64_t const*>(given.data)[i]);
        }
        return true;
    }
#endif
    return false;
}

bool readField(nvinfer1::PluginField const& given, Attributes& attributes, char const* op)
{
    for (Field const& field : fieldsOf(attributes))
    {
        if (std::strcmp(given.name, field.name) == 0)
        {
            bool const isRead = copyNumbers(given, field);
            if (!isRead)
            {
                report(std::string(op) + ": attribute " + field.name + " has " + std::to_string(given.length)
                    + " values or no integers, expected " + std::to_string(field.length) + " integers");
            }
            return isRead;
        }
    }
    bool const isOnnxs = std::strcmp(given.name, "plugin_version") == 0 || std::strcmp(given.name, "plugin_namespace") == 0;
    if (!isOnnxs)
    {
        report(std::string(op) + ": unknown attribute " + given.name);
    }
    return isOnnxs;
}

bool areSound(Kind kind, Attributes attributes)
{
    bool sound = true;
    for (Field const& field : fieldsOf(attributes))
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            if (field.values[i] < field.least)
            {
                report(std::string(nameOf(kind)) + ": attribute " + field.name + " is "
                    + std::to_string(field.values[i]) + ", expected " + std::to_string(field.least) + " or more");
                sound = false;
            }
        }
    }
    if (kind == Kind::kSAMPLED_SUM && (attributes.group != 1 || attributes.offsetGroup != 1))
    {
        report(std::string(nameOf(kind)) + ": group and offset_group must be 1");
        sound = false;
    }
    return sound;
}

constexpr uint32_t kMAGIC = 0x4654534cU; // "LSTF"
constexpr uint32_t kSTATE_VERSION = 1;
constexpr size_t kHEADER_WORDS = 4; // magic, version, bytes in all, kind

uint32_t checksum(std::vector<uint32_t> const& words, size_t count)
{
    uint32_t hash = 2166136261U; // FNV-1a, by words
    for (size_t i = 0; i < count; ++i)
    {
        hash = (hash ^ words[i]) * 16777619U;
    }
    return hash;
}

int32_t at(Dims const& dims, int32_t index)
{
    return static_cast<int32_t>(dims.d[index]);
}

std::string text(Dims const& dims)
{
    std::string result;
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        result += (i == 0 ? "" : "x") + std::to_string(dims.d[i]);
    }
    return result;
}

bool agree(char const* op, char const* what, Dims const& found, std::initializer_list<int64_t> expected)
{
    Dims wanted{};
    for (int64_t const size : expected)
    {
        wanted.d[wanted.nbDims++] = static_cast<decltype(wanted.d[0] + 0)>(size);
    }
    if (text(found) != text(wanted))
    {
        report(std::string(op) + ": " + what + " is " + text(found) + ", expected " + text(wanted));
        return false;
    }
    return true;
}

int32_t typeOf(PluginTensorDesc const& tensor)
{
    switch (tensor.type)
    {
    case DataType::kFLOAT: return LSTFE_FLOAT32;
    case DataType::kHALF: return LSTFE_FLOAT16;
    default: return LSTFE_BFLOAT16;
    }
}

int32_t layoutOf(PluginTensorDesc const& tensor)
{
    return tensor.format == TensorFormat::kHWC8 ? LSTFE_NHWC : LSTFE_NCHW;
}

nvinfer1::ILogger* (*gFindLogger)() = nullptr;

} // namespace

char const* nameOf(Kind kind)
{
    return kind == Kind::kDEFORM_CONV ? "LstfeDeformConv2d" : "LstfeSampledSum";
}

void setLogger(nvinfer1::ILogger* (*find)())
{
    gFindLogger = find;
}

void report(std::string const& message)
{
    nvinfer1::ILogger* const logger = gFindLogger == nullptr ? nullptr : gFindLogger();
    if (logger != nullptr)
    {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
        return;
    }
    std::fprintf(stderr, "%s\n", message.c_str());
}

nvinfer1::PluginFieldCollection const& attributeFields()
{
    static std::vector<nvinfer1::PluginField> const fields = [] {
        Attributes attributes;
        std::vector<nvinfer1::PluginField> all;
        for (Field const& field : fieldsOf(attributes))
        {
            all.emplace_back(field.name, nullptr, PluginFieldType::kINT32, field.length);
        }
        return all;
    }();
    static nvinfer1::PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    return collection;
}

std::optional<Attributes> readAttributes(Kind kind, nvinfer1::PluginFieldCollection const& fields)
{
    Attributes attributes;
    for (int32_t i = 0; i < fields.nbFields; ++i)
    {
        if (!readField(fields.fields[i], attributes, nameOf(kind)))
        {
            return std::nullopt;
        }
    }
    return areSound(kind, attributes) ? std::optional<Attributes>(attributes) : std::nullopt;
}

std::vector<uint8_t> writeState(Kind kind, Attributes const& attributes)
{
    Attributes copy = attributes;
    std::vector<uint32_t> words{kMAGIC, kSTATE_VERSION, 0, static_cast<uint32_t>(kind)};
    for (Field const& field : fieldsOf(copy))
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            words.push_back(static_cast<uint32_t>(field.values[i]));
        }
    }
    words[2] = static_cast<uint32_t>(sizeof(uint32_t) * (words.size() + 1));
    words.push_back(checksum(words, words.size()));
    std::vector<uint8_t> bytes(sizeof(uint32_t) * words.size());
    std::memcpy(bytes.data(), words.data(), bytes.size());
    return bytes;
}

std::optional<Attributes> readState(Kind kind, void const* data, size_t length)
{
    size_t const expected = writeState(kind, Attributes{}).size();
    std::vector<uint32_t> words(expected / sizeof(uint32_t));
    std::string const op(nameOf(kind));
    if (data == nullptr || length < sizeof(uint32_t) * kHEADER_WORDS)
    {
        report(op + ": saved state of " + std::to_string(length) + " bytes is cut short; build the engine again");
        return std::nullopt;
    }
    std::memcpy(words.data(), data, sizeof(uint32_t) * kHEADER_WORDS);
    if (words[0] != kMAGIC || words[1] != kSTATE_VERSION)
    {
        report(op + ": saved state is of another version of the plugin, expected format "
            + std::to_string(kSTATE_VERSION) + "; build the engine again");
        return std::nullopt;
    }
    if (length != expected || words[2] != expected || words[3] != static_cast<uint32_t>(kind))
    {
        report(op + ": saved state has " + std::to_string(length) + " bytes, expected " + std::to_string(expected)
            + " of this operator; build the engine again");
        return std::nullopt;
    }
    std::memcpy(words.data(), data, expected);
    if (words.back() != checksum(words, words.size() - 1))
    {
        report(op + ": saved state is damaged; build the engine again");
        return std::nullopt;
    }
    Attributes attributes;
    size_t next = kHEADER_WORDS;
    for (Field const& field : fieldsOf(attributes))
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            field.values[i] = static_cast<int32_t>(words[next++]);
        }
    }
    return areSound(kind, attributes) ? std::optional<Attributes>(attributes) : std::nullopt;
}

int32_t Operation::numInputs() const
{
    return offsetsAt() + 1 + (mAttributes.hasBias != 0 ? 1 : 0) + (mAttributes.hasMask != 0 ? 1 : 0);
}

bool Operation::outputDims(nvinfer1::DimsExprs const* inputs, int32_t numGiven, nvinfer1::DimsExprs& output,
    nvinfer1::IExprBuilder& builder) const
{
    bool const isConvolution = mKind == Kind::kDEFORM_CONV;
    if (numGiven != numInputs() || inputs[0].nbDims != 4 || inputs[offsetsAt()].nbDims != 4
        || (isConvolution && inputs[1].nbDims != 4))
    {
        report(std::string(nameOf(mKind)) + ": found " + std::to_string(numGiven) + " inputs, expected "
            + std::to_string(numInputs()) + ", features, weight, maps and offsets with 4 dimensions");
        return false;
    }
    int32_t const taps = mAttributes.kernelShape[0] * mAttributes.kernelShape[1];
    output.nbDims = 4;
    output.d[0] = inputs[0].d[0];
    output.d[1] = isConvolution ? inputs[1].d[0]
                                : builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *inputs[0].d[1],
                                    *builder.constant(taps));
    output.d[2] = inputs[offsetsAt()].d[2];
    output.d[3] = inputs[offsetsAt()].d[3];
    return output.d[1] != nullptr;
}

bool Operation::isSupported(int32_t position, PluginTensorDesc const& features, PluginTensorDesc const& tensor) const
{
    bool const isLinear = tensor.format == TensorFormat::kLINEAR;
    if (position == 0)
    {
#if NV_TENSORRT_MAJOR >= 10
        if (tensor.type == DataType::kBF16)
        {
            return tensor.format == TensorFormat::kHWC8;
        }
#endif
        return (tensor.type == DataType::kHALF && tensor.format == TensorFormat::kHWC8)
            || (isLinear && (tensor.type == DataType::kHALF || tensor.type == DataType::kFLOAT));
    }
    bool const isLikeFeatures = position == numInputs() || (mKind == Kind::kDEFORM_CONV && position == 1);
    if (isLikeFeatures)
    {
        return tensor.type == features.type && tensor.format == features.format;
    }
    return isLinear && tensor.type == DataType::kFLOAT; // offsets, bias, mask: half would move samples
}

LstfeSampling Operation::sampling(PluginTensorDesc const* inputs) const
{
    bool const isConvolution = mKind == Kind::kDEFORM_CONV;
    Attributes const& a = mAttributes;
    Dims const& features = inputs[0].dims;
    LstfeSampling s{};
    s.batch = at(features, 0);
    s.height = at(features, 2);
    s.width = at(features, 3);
    s.kernelHeight = isConvolution ? at(inputs[1].dims, 2) : a.kernelShape[0];
    s.kernelWidth = isConvolution ? at(inputs[1].dims, 3) : a.kernelShape[1];
    s.strideY = a.strides[0];
    s.strideX = a.strides[1];
    s.padTop = a.pads[0];
    s.padLeft = a.pads[1];
    s.padBottom = a.pads[2];
    s.padRight = a.pads[3];
    s.dilationY = a.dilations[0];
    s.dilationX = a.dilations[1];
    s.offsetGroups = a.offsetGroup;
    return s;
}

LstfeDeformConvParams Operation::deformConvParams(PluginTensorDesc const* inputs) const
{
    LstfeDeformConvParams params{};
    params.sampling = sampling(inputs);
    params.channels = at(inputs[0].dims, 1);
    params.outChannels = at(inputs[1].dims, 0);
    params.groups = mAttributes.group;
    params.relu = mAttributes.relu;
    params.type = typeOf(inputs[0]);
    params.layout = layoutOf(inputs[0]);
    return params;
}

LstfeSampledSumParams Operation::sampledSumParams(PluginTensorDesc const* inputs) const
{
    LstfeSampledSumParams params{};
    params.sampling = sampling(inputs);
    params.channels = at(inputs[0].dims, 1) / (mAttributes.kernelShape[0] * mAttributes.kernelShape[1]);
    params.relu = mAttributes.relu;
    params.type = typeOf(inputs[0]);
    params.layout = layoutOf(inputs[0]);
    return params;
}

size_t Operation::workspace(PluginTensorDesc const* inputs) const
{
    if (mKind == Kind::kSAMPLED_SUM)
    {
        return 0;
    }
    LstfeDeformConvParams const params = deformConvParams(inputs);
    return lstfe_deform_conv2d_workspace(&params);
}

bool Operation::areSizesSound(PluginTensorDesc const* inputs, PluginTensorDesc const& output) const
{
    char const* const op = nameOf(mKind);
    bool const isConvolution = mKind == Kind::kDEFORM_CONV;
    LstfeSampling const s = sampling(inputs);
    if (s.strideY < 1 || s.strideX < 1)
    {
        return false;
    }
    int64_t const taps = int64_t{s.kernelHeight} * s.kernelWidth;
    int64_t const height = lstfe_output_height(&s);
    int64_t const width = lstfe_output_width(&s);
    int64_t const channels = inputs[0].dims.d[1];
    int64_t const outs = isConvolution ? int64_t{at(inputs[1].dims, 0)} : channels / taps;
    int32_t next = offsetsAt() + 1;
    bool sound = agree(op, "offsets", inputs[offsetsAt()].dims, {s.batch, 2 * s.offsetGroups * taps, height, width})
        && agree(op, "output", output.dims, {s.batch, outs, height, width});
    sound = sound
        && (isConvolution ? agree(op, "weight", inputs[1].dims,
                {outs, channels / mAttributes.group, s.kernelHeight, s.kernelWidth})
                          : agree(op, "maps", inputs[0].dims, {s.batch, outs * taps, s.height, s.width}));
    sound = sound && (mAttributes.hasBias == 0 || agree(op, "bias", inputs[next++].dims, {outs}));
    return sound
        && (mAttributes.hasMask == 0
            || agree(op, "mask", inputs[next].dims, {s.batch, s.offsetGroups * taps, height, width}));
}

int32_t Operation::run(PluginTensorDesc const* inputDescs, PluginTensorDesc const& outputDesc,
    void const* const* inputs, void* output, void* workspaceMemory, void* stream) const
{
    if (!areSizesSound(inputDescs, outputDesc))
    {
        return LSTFE_BAD_PARAMETERS;
    }
    int32_t next = offsetsAt() + 1;
    auto const* const offsets = static_cast<float const*>(inputs[offsetsAt()]);
    auto const* const bias = static_cast<float const*>(mAttributes.hasBias != 0 ? inputs[next++] : nullptr);
    auto const* const mask = static_cast<float const*>(mAttributes.hasMask != 0 ? inputs[next] : nullptr);
    int32_t status = LSTFE_OK;
    if (mKind == Kind::kDEFORM_CONV)
    {
        LstfeDeformConvParams const params = deformConvParams(inputDescs);
        size_t const bytes = workspaceMemory == nullptr ? 0 : workspace(inputDescs);
        status = lstfe_deform_conv2d(
            &params, inputs[0], offsets, mask, inputs[1], bias, output, workspaceMemory, bytes, stream);
    }
    else
    {
        LstfeSampledSumParams const params = sampledSumParams(inputDescs);
        status = lstfe_sampled_sum(&params, inputs[0], offsets, mask, bias, output, stream);
    }
    if (status != LSTFE_OK)
    {
        report(std::string(nameOf(mKind)) + ": " + lstfe_status_text(status) + " (status " + std::to_string(status) + ")");
    }
    return status;
}

} // namespace lstfe
